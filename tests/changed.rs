//! Waiting for a change as a future, without any runtime.
#![cfg(feature = "async")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use highwater::storage::MemoryStorage;
use highwater::{Error, Feed, Oldest, Options, Store};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn open() -> (Store, Feed) {
    let options = Options::new().storage(Arc::new(MemoryStorage::new()));
    let store = options.background(false).open("/s").unwrap();
    let feed = store.feed("c", "m").unwrap();
    (store, feed)
}

/// Does something while somebody waits for a change after the newest cursor.
fn wait_while(feed: &Feed, act: impl FnOnce() + Send) -> highwater::Result<()> {
    let after = feed.last_cursor().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(feed.changed(after)));
        act();
        waiting.join().unwrap()
    })
}

#[test]
fn a_commit_wakes_the_task() {
    let (_store, feed) = open();
    for round in 0..200 {
        let id = round.to_string();
        wait_while(&feed, || drop(feed.batch_save_raw(&[(&id, "1")]).unwrap())).unwrap();
    }
    block_on(feed.changed(None)).unwrap();
}

#[test]
fn closing_and_replacing_end_the_wait_with_an_error() {
    let (store, feed) = open();
    let _ = feed.batch_save_raw(&[("a", "1")]).unwrap();
    let replaced = wait_while(&feed, || {
        let _ = feed.hard_delete(&Oldest::all()).unwrap();
    });
    assert!(matches!(replaced, Err(Error::StaleCursor { .. })));
    let closed = wait_while(&feed, || store.close().unwrap());
    assert!(matches!(closed, Err(Error::Closed)));
}

#[test]
fn a_dropped_future_leaves_nothing_behind() {
    let (_store, feed) = open();
    let waker = Waker::noop();
    let mut context = Context::from_waker(waker);
    for _ in 0..3 {
        let mut future = pin!(feed.changed(None));
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    let _ = feed.batch_save_raw(&[("a", "1")]).unwrap();
    assert!(
        pin!(feed.changed(None))
            .as_mut()
            .poll(&mut context)
            .is_ready()
    );
}
