//! The same for each of many files, on as many threads as there are processors.

use std::thread;

/// More threads than this wait for each other.
const THREADS: usize = 8;
/// Fewer files are not worth a thread.
const SHARE: usize = 200;

/// What `of` makes of consecutive parts of `all`, in their order.
pub fn parts<'a, T: Sync, R: Send>(all: &'a [T], of: impl Fn(&'a [T]) -> Vec<R> + Sync) -> Vec<R> {
    if all.len() <= SHARE {
        return of(all);
    }
    let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let share = all.len().div_ceil(threads).max(SHARE);
    let of = &of;
    thread::scope(|scope| {
        let parts: Vec<_> = all.chunks(share).map(|part| scope.spawn(move || of(part))).collect();
        let mut made = Vec::with_capacity(all.len());
        for part in parts {
            match part.join() {
                Ok(one) => made.extend(one),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        made
    })
}
