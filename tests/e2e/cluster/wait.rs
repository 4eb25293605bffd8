//! Waiting by watching: every version of one object is seen, at the moment the API server tells it.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, WatchEvent, WatchParams},
};

use super::conditions;
use crate::harness::{About, Result};

/// By then everything that the operator owes is written: steps on the way may be up to 10 s late.
pub const SETTLE: Duration = Duration::from_secs(12);

/// How long a watch that has ended may take to be there again.
const REOPEN: Duration = Duration::from_secs(60);

/// One object, followed.
pub struct Watch {
    api: Api<DynamicObject>,
    name: String,
    current: Option<DynamicObject>,
    stream: BoxStream<'static, kube::Result<WatchEvent<DynamicObject>>>,
}

impl Watch {
    /// Reads the object (it may be absent) and follows it from there. When this returns, nothing that happens to it is missed.
    pub async fn open(api: &Api<DynamicObject>, name: &str) -> Result<Self> {
        let current = api.get_opt(name).await?;
        // An absent object is met again from the beginning of the watch cache.
        let version = current
            .as_ref()
            .and_then(ResourceExt::resource_version)
            .unwrap_or_else(|| "0".into());
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let stream = api.watch(&params, &version).await?.boxed();
        Ok(Self {
            api: api.clone(),
            name: name.to_owned(),
            current,
            stream,
        })
    }

    pub fn current(&self) -> Option<&DynamicObject> {
        self.current.as_ref()
    }

    pub fn into_object(self) -> Result<DynamicObject> {
        self.current.about(format!("{} is absent", self.name))
    }

    /// Waits for the next version.
    pub async fn change(&mut self) -> Result {
        loop {
            match self.stream.next().await {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => self.current = Some(object),
                Some(Ok(WatchEvent::Deleted(_))) => self.current = None,
                Some(Ok(WatchEvent::Bookmark(_))) => continue,
                // The server ends watches now and then, and forgets old versions; a busy one may not answer at once.
                Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => {
                    *self = retry(REOPEN, async || Self::open(&self.api, &self.name).await).await?;
                }
            }
            return Ok(());
        }
    }

    /// Waits until the object (or its absence) is as wanted; returns the moment it was seen.
    pub async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        mut holds: impl FnMut(Option<&DynamicObject>) -> bool,
    ) -> Result<Instant> {
        let changes = async {
            while !holds(self.current.as_ref()) {
                self.change().await?;
            }
            Ok(Instant::now())
        };
        match tokio::time::timeout(limit, changes).await {
            Ok(seen) => seen,
            Err(_) => crate::fail!(
                "expected within {:.1} s: {what}; seen: {}",
                limit.as_secs_f64(),
                self.describe()
            ),
        }
    }

    /// Every version that comes within the time, the present one first.
    pub async fn record(&mut self, time: Duration) -> Result<Vec<DynamicObject>> {
        let mut versions: Vec<DynamicObject> = self.current.iter().cloned().collect();
        let changes = async {
            loop {
                self.change().await?;
                versions.extend(self.current.clone());
            }
        };
        match tokio::time::timeout(time, changes).await {
            Ok(result) => result,
            Err(_) => Ok(versions),
        }
    }

    fn describe(&self) -> String {
        self.current
            .as_ref()
            .map_or_else(|| format!("{} is absent", self.name), conditions::describe)
    }
}

/// Waits until the object is gone.
pub async fn gone(api: &Api<DynamicObject>, name: &str, limit: Duration) -> Result {
    Watch::open(api, name)
        .await?
        .until(limit, "gone", |object| object.is_none())
        .await
        .map(|_| ())
}

/// Tries again every 100 ms until it works; the last error when the time is up.
pub async fn retry<T>(limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                crate::fail!("still failing after {:.1} s: {error}", limit.as_secs_f64())
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// How often a client without a watch asks.
pub const POLL: Duration = Duration::from_millis(100);
