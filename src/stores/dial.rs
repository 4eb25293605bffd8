//! TCP connections to servers whose address the network may only just be learning.
//!
//! The first packet to a Service that is a moment old goes astray: nobody on its node forwards it yet, and whatever is sent again on that connection
//! takes the same way. So when no answer comes, another connection is begun beside it, and the first one that comes about is taken.

use std::{future::Future, io, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::timeout};

use super::endpoint::Endpoint;

/// How long the first connection is waited for alone; each further one twice as long as the one before it. A name is looked up anew for each.
const ALONE: Duration = Duration::from_millis(250);

/// A connection on which nothing has been said yet. Takes as long as it takes: callers have deadlines.
pub async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let tcp = first(|| TcpStream::connect((endpoint.host.as_str(), endpoint.port))).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// What the first attempt gives that ends, a refusal too.
async fn first<T, F: Future<Output = T>>(attempt: impl Fn() -> F) -> T {
    let (mut attempts, mut patience) = (FuturesUnordered::new(), ALONE);
    loop {
        attempts.push(attempt());
        if let Ok(Some(outcome)) = timeout(patience, attempts.next()).await {
            return outcome;
        }
        patience *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use tokio::time::{Instant, sleep};

    use super::*;

    /// What comes of attempts that take so long each, in milliseconds; `None` never ends. The number of the attempt, and when.
    async fn outcome(attempts: &[Option<u64>]) -> (usize, u128) {
        let (begun, next) = (Instant::now(), Cell::new(0));
        let number = first(|| {
            let number = next.replace(next.get() + 1);
            async move {
                match attempts[number] {
                    Some(takes) => sleep(Duration::from_millis(takes)).await,
                    None => pending().await,
                }
                number
            }
        });
        (number.await, begun.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_answer_gets_company_and_the_first_answer_counts() {
        assert_eq!(outcome(&[Some(3)]).await, (0, 3));
        assert_eq!(outcome(&[None, Some(2)]).await, (1, 252));
        assert_eq!(outcome(&[None, None, None, Some(2)]).await, (3, 1_752));
        assert_eq!(
            outcome(&[Some(400), Some(9_000)]).await,
            (0, 400),
            "slow, and not given up"
        );
    }
}
