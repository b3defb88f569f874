//! A store that does what a test wants, and what is told of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::documented::assert_documented;
use crate::model::RawValue;
use crate::store::{Pending, Reporter};

const NET: &str = "networks/11111111-1111-4111-8111-111111111111";
const PORT: &str = "nodes/h/ports/aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const OTHER: &str = "nodes/h/ports/bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";

/// A store that can be made to do anything.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Behaviour>>);

#[derive(Default)]
enum Behaviour {
    /// It answers nothing, for ever.
    #[default]
    Silent,
    /// It refuses.
    Refusing,
    /// It can be followed.
    Good(watch::Sender<Arc<Listing>>),
}

impl Fake {
    fn refuse(&self) {
        *self.0.lock() = Behaviour::Refusing;
    }

    /// Says this, to whoever follows now or later.
    fn say(&self, listing: Listing) {
        let mut behaviour = self.0.lock();
        match &*behaviour {
            Behaviour::Good(sender) => drop(sender.send_replace(Arc::new(listing))),
            _ => *behaviour = Behaviour::Good(watch::channel(Arc::new(listing)).0),
        }
    }

    /// Is away: who follows is told that the watch has ended.
    fn leave(&self) {
        *self.0.lock() = Behaviour::Refusing;
    }
}

impl Store for Fake {
    fn location(&self) -> String {
        "etcd http://127.0.0.1:1 under /viaduct/v1/".to_owned()
    }

    fn list(&self) -> Pending<'_, Listing> {
        unreachable!("only commands list")
    }

    fn follow<'a>(&'a self, _: &'a HostName) -> Pending<'a, Watch> {
        Box::pin(async move {
            let receiver = match &*self.0.lock() {
                Behaviour::Silent => None,
                Behaviour::Refusing => {
                    let (location, what) = (self.location(), "cannot be reached".to_owned());
                    return Err(StoreError::Remote { location, what, remedy: "start it" });
                }
                Behaviour::Good(sender) => Some(sender.subscribe()),
            };
            match receiver {
                Some(receiver) => Ok(Watch::new(receiver, tokio::spawn(async {}))),
                None => std::future::pending().await,
            }
        })
    }

    fn put<'a>(&'a self, _: &'a Key, _: &'a Value) -> Pending<'a, ()> {
        unreachable!("only commands write")
    }

    fn delete<'a>(&'a self, _: &'a Key) -> Pending<'a, bool> {
        unreachable!("only commands delete")
    }

    fn claim<'a>(&'a self, _: &'a HostName) -> Pending<'a, Box<dyn Reporter>> {
        unreachable!("nothing is reported here")
    }
}

struct Bed {
    folder: TempDir,
    store: Fake,
    host: HostName,
}

impl Bed {
    fn new() -> Bed {
        let folder = TempDir::new().expect("a directory for the test");
        Bed { folder, store: Fake::default(), host: "h".parse().expect("a name") }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("last-read.json")
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.file(), self.store.location(), &self.host)
    }

    fn hold(&self) -> Hold {
        Hold::with_cache(Arc::new(self.store.clone()), Some(self.cache()), &self.host)
    }
}

fn listing(values: &[(&str, &str)]) -> Listing {
    let value = |(key, text): &(&str, &str)| {
        let key: Key = key.parse().expect("a key");
        (key, RawValue::Json(text.as_bytes().into()))
    };
    Listing { values: values.iter().map(value).collect(), ..Listing::default() }
}

fn void() -> Listing {
    Listing { void: true, ..Listing::default() }
}

/// The keys and values of what is told.
fn told(news: &News) -> Option<BTreeMap<String, String>> {
    let text = |raw: &RawValue| match raw {
        RawValue::Json(text) => String::from_utf8_lossy(text).into_owned(),
        RawValue::Unreadable(misfit) => misfit.to_string(),
    };
    let values = &news.listing.as_ref()?.values;
    Some(values.iter().map(|(key, value)| (key.to_string(), text(value))).collect())
}

fn of(values: &[(&str, &str)]) -> Option<BTreeMap<String, String>> {
    told(&News { listing: Some(Arc::new(listing(values))), ..News::default() })
}

/// Waits for news that are so.
async fn until(hold: &mut Hold, good: impl Fn(&News) -> bool) -> News {
    let wait = async {
        loop {
            let news = hold.next().await;
            if good(&news) {
                return news;
            }
        }
    };
    timeout(Duration::from_secs(30), wait).await.expect("it is told in the end")
}

#[tokio::test]
async fn a_store_that_goes_and_comes_changes_nothing() {
    let bed = Bed::new();
    bed.store.say(listing(&[(NET, "1")]));
    let mut hold = bed.hold();
    let news = until(&mut hold, |news| news.listing.is_some()).await;
    assert_eq!((told(&news), news.source, news.readings), (of(&[(NET, "1")]), Source::Store, 1));

    // It may say so itself, too.
    bed.store.say(Listing { away: true, ..listing(&[(NET, "1")]) });
    until(&mut hold, |news| news.away && news.source == Source::Store).await;
    bed.store.leave();
    let news = until(&mut hold, |news| news.away).await;
    assert_eq!(told(&news), of(&[(NET, "1")]), "what was read stays");
    bed.store.say(listing(&[(NET, "2")]));
    let news = until(&mut hold, |news| !news.away).await;
    assert_eq!((told(&news), news.readings), (of(&[(NET, "2")]), 2));
    assert_eq!(news.problems, []);
}

#[tokio::test]
async fn a_start_without_the_store_uses_what_was_read_last() {
    let bed = Bed::new();
    bed.store.say(listing(&[(NET, "1"), (PORT, "{}")]));
    let mut hold = bed.hold();
    until(&mut hold, |news| news.listing.is_some()).await;
    while !bed.file().exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(hold);

    for silent in [false, true] {
        match silent {
            true => *bed.store.0.lock() = Behaviour::Silent,
            false => bed.store.refuse(),
        }
        let mut hold = bed.hold();
        let news = until(&mut hold, |news| news.listing.is_some()).await;
        assert_eq!(news.source, Source::Cache);
        assert_eq!(told(&news), of(&[(NET, "1"), (PORT, "{}")]));
        if silent {
            continue;
        }
        until(&mut hold, |news| news.away).await;
        // What the store says then is what counts, and what it has no more is gone.
        bed.store.say(listing(&[(NET, "1")]));
        let news = until(&mut hold, |news| news.source == Source::Store && !news.away).await;
        assert_eq!(told(&news), of(&[(NET, "1")]));
        bed.cache().write(news.listing.expect("known")).await.expect("it can be written");
        bed.cache().write(Arc::new(listing(&[(NET, "1"), (PORT, "{}")]))).await.expect("again");
    }
}

#[tokio::test]
async fn what_was_read_of_another_store_is_not_used() {
    let bed = Bed::new();
    bed.cache().write(Arc::new(listing(&[(NET, "1")]))).await.expect("it can be written");
    let other: HostName = "other".parse().expect("a name");
    let elsewhere = Cache::new(&bed.file(), "etcd elsewhere".to_owned(), &bed.host);
    assert_eq!(elsewhere.read().await, Ok(None));
    let for_other = Cache::new(&bed.file(), bed.store.location(), &other);
    assert_eq!(for_other.read().await, Ok(None));
    assert_eq!(bed.cache().read().await, Ok(Some(listing(&[(NET, "1")]))));

    // Nor is what nobody can read, and that is said.
    std::fs::write(bed.file(), "{").expect("it can be written");
    assert_documented(&bed.cache().read().await.expect_err("no JSON"));
    let nowhere = Cache::new(&bed.folder.path().join("no/where"), String::new(), &bed.host);
    let failure = nowhere.write(Arc::new(Listing::default())).await.expect_err("no folder");
    assert_documented(&failure);
    assert!(!failure.is_error(), "all is in force");
}

#[tokio::test]
async fn what_a_store_loses_at_once_is_held_until_it_is_written_again() {
    let bed = Bed::new();
    let all = [(NET, "1"), (PORT, "2"), (OTHER, "3")];
    bed.store.say(listing(&all));
    let mut hold = bed.hold();
    until(&mut hold, |news| news.listing.is_some()).await;
    assert!(!hold.accept(), "nothing is held");

    bed.store.say(void());
    let news = until(&mut hold, |news| !news.held.is_empty()).await;
    assert_eq!(told(&news), of(&all));
    assert_eq!(news.held.len(), 3);
    assert_documented(&news.problems[0]);

    // Another process, started in the meantime, holds the same.
    while !bed.file().exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let news = until(&mut bed.hold(), |news| news.listing.is_some()).await;
    assert_eq!((told(&news), news.held.len()), (of(&all), 3));

    bed.store.say(listing(&[(PORT, "new")]));
    let news = until(&mut hold, |news| news.held.len() == 2).await;
    assert_eq!(told(&news), of(&[(NET, "1"), (PORT, "new"), (OTHER, "3")]));
    bed.store.say(void());
    let news = until(&mut hold, |news| told(news) == of(&[(NET, "1"), (OTHER, "3")])).await;
    assert_eq!(news.held.len(), 2, "what was written again can be deleted");
    assert!(hold.accept());
    let news = until(&mut hold, |news| news.held.is_empty()).await;
    assert_eq!((told(&news), news.problems), (of(&[]), vec![]));
}

#[tokio::test]
async fn the_last_port_can_be_deleted() {
    let bed = Bed::new();
    // A store that is empty from the beginning is just that.
    bed.store.say(void());
    let news = until(&mut bed.hold(), |news| news.listing.is_some()).await;
    assert_eq!((told(&news), news.held), (of(&[]), vec![]));

    bed.store.say(listing(&[(NET, "1"), (PORT, "2")]));
    let mut hold = bed.hold();
    until(&mut hold, |news| news.listing.is_some()).await;
    // Of other hosts, there are values still.
    bed.store.say(Listing::default());
    let news = until(&mut hold, |news| told(news) == of(&[])).await;
    assert_eq!(news.held, []);
}
