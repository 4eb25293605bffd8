//! How much runs at once: cases of a matrix take turns, and what measures times has the machine to itself.

use tokio::sync::{Semaphore, SemaphorePermit};

const AT_ONCE: u32 = 26;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE as usize);

/// One of the places.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.unwrap()
}

/// All of them: nobody else's turn until it is dropped.
pub async fn alone() -> SemaphorePermit<'static> {
    TURNS.acquire_many(AT_ONCE).await.unwrap()
}
