//! A thread that does one thing with whatever it is handed, so that nobody waits for it.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

/// The thread, and a way to it.
#[derive(Debug)]
pub(super) struct Worker<T> {
    desk: Desk<T>,
    /// Nothing is ever sent: it closes when the thread ends.
    end: Receiver<()>,
}

/// A way to the thread.
#[derive(Debug)]
pub(super) struct Desk<T>(SyncSender<T>);

impl<T> Clone for Desk<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Desk<T> {
    /// Hands a job over, unless too many are still undone; whether it was.
    pub(super) fn offer(&self, job: T) -> bool {
        self.0.try_send(job).is_ok()
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that does `work` with each job; beside the one that is being done, so many may wait.
    pub(super) fn start(
        name: &str,
        waiting: usize,
        mut work: impl FnMut(T) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, received) = mpsc::sync_channel(waiting);
        let (alive, end) = mpsc::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            received.iter().for_each(&mut work);
            drop::<mpsc::Sender<()>>(alive);
        })?;
        Ok(Self { desk: Desk(jobs), end })
    }

    /// A way to the thread, which does not end before all of them are gone.
    pub(super) fn desk(&self) -> Desk<T> {
        self.desk.clone()
    }

    /// Hands a job over, unless too many are still undone; whether it was.
    pub(super) fn offer(&self, job: T) -> bool {
        self.desk.offer(job)
    }

    /// Waits for what was handed over, but no longer than `patience`.
    pub(super) fn finish(self, patience: Duration) {
        drop(self.desk);
        let _ = self.end.recv_timeout(patience);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn nobody_waits_for_one_that_hangs() {
        let (go, gone) = mpsc::channel::<()>();
        let (done, received) = mpsc::channel();
        let worker = Worker::start("hangs", 2, move |job: u32| {
            let _ = gone.recv();
            let _ = done.send(job);
        })
        .unwrap();
        let taken = (0..1_000).filter(|job| worker.offer(*job)).count();
        assert!((2..=3).contains(&taken), "{taken}");
        drop(go);
        let desk = worker.desk();
        assert_eq!((0..taken).map(|_| received.recv().unwrap()).collect::<Vec<_>>()[..2], [0, 1]);
        assert!(desk.offer(7));
        let start = Instant::now();
        worker.finish(Duration::from_millis(50));
        assert!(start.elapsed() >= Duration::from_millis(50), "somebody may still come");
        assert_eq!(received.recv(), Ok(7));
    }
}
