//! A thread that does one thing with whatever it is handed last, so that nobody waits for it.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Worker<T> {
    jobs: SyncSender<T>,
    /// Nothing is ever sent: it closes when the thread ends.
    end: Receiver<()>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that does `work` with each job.
    pub(super) fn start(name: &str, mut work: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let (jobs, received) = mpsc::sync_channel(1);
        let (alive, end) = mpsc::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            received.iter().for_each(&mut work);
            drop::<mpsc::Sender<()>>(alive);
        })?;
        Ok(Self { jobs, end })
    }

    /// Hands a job over, unless two are still undone; whether it was.
    pub(super) fn offer(&self, job: T) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Waits for what was handed over, but no longer than `patience`.
    pub(super) fn finish(self, patience: Duration) {
        drop(self.jobs);
        let ended = self.end.recv_timeout(patience);
        debug_assert!(matches!(ended, Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)));
    }
}
