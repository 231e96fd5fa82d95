//! Whether accounts exist, as FusionPBX's database says: asked by a thread of its own, and remembered for a minute.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::mpsc as news;

use super::line::Known;
use super::{Recent, recent};
use crate::account::SipAccount;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::fusionpbx;
use crate::fusionpbx::accounts::Directory;

/// So long an answer counts.
const REMEMBERED: Duration = Duration::from_mins(1);

/// So many answers are remembered.
const MAX_REMEMBERED: usize = 8_000;

/// So many accounts may wait to be asked about.
const MAX_ASKED: usize = 256;

/// A database that failed is asked again after this time.
const RETRY: Duration = Duration::from_secs(10);

/// A database takes no longer, or has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is remembered, and the way to the thread that asks. Of one that asks nobody, nothing is known.
#[derive(Debug)]
pub struct Accounts {
    remembered: Recent<SipAccount, (Known, Instant)>,
    asked: HashSet<SipAccount>,
    /// Nobody can be asked before.
    unusable: Option<Instant>,
    questions: SyncSender<SipAccount>,
}

/// What is known at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtOnce {
    /// This.
    Answer(Known),
    /// An answer will come.
    Asked,
}

/// What the thread found out.
#[derive(Debug)]
pub enum Answer {
    /// Whether each of these exists.
    Of(Vec<(SipAccount, bool)>),
    /// There is nobody to ask.
    NoFusionPbx,
    /// It cannot be asked, and why.
    Failed(String),
}

impl Accounts {
    /// Starts the thread, and the way by which its answers come: hand each to [`learn`](Self::learn).
    pub fn start(config: &Config) -> std::io::Result<(Self, news::UnboundedReceiver<Answer>)> {
        let (questions, asked) = mpsc::sync_channel(MAX_ASKED);
        let (answers, received) = news::unbounded_channel();
        let config = config.clone();
        std::thread::Builder::new()
            .name("accounts".to_owned())
            .spawn(move || answer_all(&config, &asked, &answers))?;
        Ok((Self::new(questions), received))
    }

    fn new(questions: SyncSender<SipAccount>) -> Self {
        Self { remembered: recent(MAX_REMEMBERED), asked: HashSet::new(), unusable: None, questions }
    }

    /// Whether an account exists, if that is known at once; otherwise it is asked for.
    pub fn ask(&mut self, account: &SipAccount, now: Instant) -> AtOnce {
        if let Some((known, since)) = self.remembered.peek(account)
            && now.saturating_duration_since(*since) < REMEMBERED
        {
            return AtOnce::Answer(*known);
        }
        if self.unusable.is_some_and(|until| now < until) {
            return AtOnce::Answer(Known::Unknown);
        }
        if !self.asked.contains(account) {
            if self.questions.try_send(account.clone()).is_err() {
                return AtOnce::Answer(Known::Unknown);
            }
            self.asked.insert(account.clone());
        }
        AtOnce::Asked
    }

    /// What was found out of an account that was asked for; none if no answer came yet.
    #[must_use]
    pub fn answer(&self, account: &SipAccount) -> Option<Known> {
        if self.asked.contains(account) {
            return None;
        }
        Some(self.remembered.peek(account).map_or(Known::Unknown, |(known, _)| *known))
    }

    /// Takes in what the thread found out. Why nobody can be asked, if that is so.
    pub fn learn(&mut self, answer: Answer, now: Instant) -> Option<String> {
        let (again, why) = match answer {
            Answer::Of(answers) => {
                self.unusable = None;
                for (account, exists) in answers {
                    self.asked.remove(&account);
                    let known = if exists { Known::Yes } else { Known::No };
                    self.remembered.insert(account, (known, now));
                }
                return None;
            }
            Answer::NoFusionPbx => (REMEMBERED, None),
            Answer::Failed(why) => (RETRY, Some(why)),
        };
        self.unusable = Some(now + again);
        self.asked.clear();
        why
    }
}

/// Answers until nobody asks any more; what comes while one question is asked is the next one, all together.
fn answer_all(config: &Config, asked: &Receiver<SipAccount>, answers: &news::UnboundedSender<Answer>) {
    let mut directory = None;
    while let Ok(first) = asked.recv() {
        let accounts: Vec<_> = std::iter::once(first).chain(asked.try_iter().take(MAX_ASKED)).collect();
        let answer = find_out(config, &mut directory, accounts).unwrap_or_else(|error| {
            directory = None;
            Answer::Failed(format!("{error:#}"))
        });
        let failed = !matches!(answer, Answer::Of(_));
        if failed {
            // Their askers know already that there is no answer.
            asked.try_iter().for_each(drop);
        }
        if answers.send(answer).is_err() {
            return;
        }
    }
}

fn find_out(
    config: &Config,
    directory: &mut Option<Directory>,
    accounts: Vec<SipAccount>,
) -> anyhow::Result<Answer> {
    if directory.is_none() {
        *directory = fusionpbx::own_database(config)?.map(Directory::new).transpose()?;
    }
    let Some(directory) = directory else { return Ok(Answer::NoFusionPbx) };
    let found = directory.look_up(&accounts, Deadline::after(Instant::now(), PATIENCE))?;
    let exist = found.into_iter().map(fusionpbx::accounts::Existence::is_known);
    Ok(Answer::Of(accounts.into_iter().zip(exist).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: usize) -> SipAccount {
        SipAccount::new(&number.to_string(), "a.example.com").unwrap()
    }

    #[test]
    fn an_answer_counts_for_a_minute() {
        let (questions, asked) = mpsc::sync_channel(MAX_ASKED);
        let (mut accounts, now) = (Accounts::new(questions), Instant::now());
        assert_eq!(accounts.ask(&account(1), now), AtOnce::Asked);
        assert_eq!(accounts.ask(&account(1), now), AtOnce::Asked);
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), [account(1)], "once");
        assert_eq!(accounts.answer(&account(1)), None);
        assert_eq!(accounts.learn(Answer::Of(vec![(account(1), true), (account(2), false)]), now), None);
        assert_eq!(accounts.answer(&account(1)), Some(Known::Yes));
        assert_eq!(accounts.ask(&account(1), now), AtOnce::Answer(Known::Yes));
        assert_eq!(accounts.ask(&account(2), now), AtOnce::Answer(Known::No));
        assert_eq!(accounts.ask(&account(1), now + REMEMBERED), AtOnce::Asked);
    }

    #[test]
    fn who_failed_is_left_alone() {
        let (questions, asked) = mpsc::sync_channel(MAX_ASKED);
        let (mut accounts, now) = (Accounts::new(questions), Instant::now());
        assert_eq!(accounts.ask(&account(1), now), AtOnce::Asked);
        assert_eq!(accounts.learn(Answer::Failed("why".into()), now).as_deref(), Some("why"));
        assert_eq!(accounts.answer(&account(1)), Some(Known::Unknown));
        asked.try_iter().for_each(drop);
        assert_eq!(accounts.ask(&account(1), now), AtOnce::Answer(Known::Unknown));
        assert_eq!(asked.try_iter().count(), 0);
        assert_eq!(accounts.ask(&account(1), now + RETRY), AtOnce::Asked);
        assert_eq!(accounts.learn(Answer::NoFusionPbx, now), None);
        assert_eq!(accounts.ask(&account(2), now + RETRY), AtOnce::Answer(Known::Unknown));
    }

    #[test]
    fn nothing_grows_without_end() {
        let (questions, _asked) = mpsc::sync_channel(MAX_ASKED);
        let (mut accounts, now) = (Accounts::new(questions), Instant::now());
        for number in 0..MAX_ASKED {
            assert_eq!(accounts.ask(&account(number), now), AtOnce::Asked);
        }
        assert_eq!(accounts.ask(&account(MAX_ASKED), now), AtOnce::Answer(Known::Unknown));
        let all = (0..MAX_REMEMBERED * 2).map(|number| (account(number), true)).collect();
        accounts.learn(Answer::Of(all), now);
        assert_eq!(accounts.remembered.len(), MAX_REMEMBERED);
    }
}
