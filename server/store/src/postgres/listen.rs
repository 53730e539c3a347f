//! What other servers write, and how it is noticed.
//!
//! A notice is `<server> <number> rows <plugin>`, `… definition <plugin>`, `… products` or `… catalogue`; or `schema`,
//! when the core schema has changed. One that is not understood comes from a newer server, and moves everything.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};
use uuid::Uuid;

use super::engine::Core;
use super::fault::words;
use super::target::{Link, NoLink, Target};
use crate::error::StoreError;
use crate::shared::Touched;

/// Where servers tell each other what they have written.
pub(super) const CHANNEL: &str = "patchbay";

/// How often the connection is tried while nothing comes.
const PING: Duration = Duration::from_secs(1);
/// How long it may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// The pauses between tries to get it back.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Asked whether everything is heard that was committed before. The answer comes when it has been heeded.
pub(super) type Question = oneshot::Sender<()>;

/// A connection that listens.
pub(super) struct Ear {
    client: Client,
    notices: UnboundedReceiver<String>,
}

impl Ear {
    pub(super) async fn open(target: &Target) -> Result<Ear, NoLink> {
        let Link {
            client,
            mut messages,
        } = target.link().await?;
        let (heard, notices) = unbounded_channel();
        // It ends when the connection does, which is when the client is dropped.
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match message {
                    Ok(AsyncMessage::Notification(notice)) => {
                        // Nobody hears it when the listener has just ended.
                        let _gone = heard.send(notice.payload().to_owned());
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(error = words(&error), "the listening connection ended");
                        break;
                    }
                }
            }
        });
        match timeout(PATIENCE, client.batch_execute(&format!("LISTEN {CHANNEL}"))).await {
            Ok(Ok(())) => Ok(Ear { client, notices }),
            Ok(Err(error)) => Err(NoLink::Refused(error)),
            Err(_) => Err(NoLink::Silent(PATIENCE)),
        }
    }
}

impl Ear {
    /// Has the server answer. It sends what it has to tell before that: a notice of every write that was answered
    /// before this was asked.
    async fn ping(&self) -> Result<(), String> {
        match timeout(PATIENCE, self.client.batch_execute("")).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(words(&error)),
            Err(_) => Err("the database does not answer".to_owned()),
        }
    }
}

/// Listens until it is aborted.
pub(super) async fn listen(core: Arc<Core>, mut ear: Ear, mut questions: Receiver<Question>) {
    loop {
        let why = hear(&core, &mut ear, &mut questions).await;
        tracing::warn!(
            why,
            "what other servers write is not noticed; connecting again"
        );
        core.deaf.send_replace(Some(why));
        ear = regain(&core).await;
        core.deaf.send_replace(None);
        tracing::info!("what other servers write is noticed again");
    }
}

/// Hears others' writes for as long as it can, and says why it cannot any more.
async fn hear(core: &Core, ear: &mut Ear, questions: &mut Receiver<Question>) -> String {
    let mut asked: Vec<Question> = Vec::new();
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let result = tokio::select! {
            notice = ear.notices.recv() => match notice {
                None => return "the connection was lost".to_owned(),
                Some(first) => heed(core, ear, Some(first)).await,
            },
            () = core.snapshot_due.notified() => core.take_snapshot().await,
            _ = ping.tick() => match ear.ping().await {
                Ok(()) => Ok(()),
                Err(why) => return why,
            },
            Some(question) = questions.recv() => {
                asked.push(question);
                while let Ok(question) = questions.try_recv() {
                    asked.push(question);
                }
                match ear.ping().await {
                    Ok(()) => heed(core, ear, None).await,
                    Err(why) => return why,
                }
            }
        };
        if let Err(error) = result {
            return error.detail();
        }
        for question in asked.drain(..) {
            // Who no longer waits needs no answer.
            let _gone = question.send(());
        }
    }
}

/// Connects again. What was missed meanwhile has been made up for when it is done.
async fn regain(core: &Core) -> Ear {
    let mut pause = PAUSES[0];
    loop {
        let why = match Ear::open(&core.target).await {
            Ok(ear) => match core.catch_up().await {
                Ok(()) => return ear,
                Err(error) => error.detail(),
            },
            Err(error) => error.words(),
        };
        tracing::debug!(why, "the database cannot be listened to yet");
        core.deaf.send_replace(Some(why));
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

/// What a notice tells.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// A server has written.
    Written(Uuid, u64, Touched),
    /// The core schema has changed.
    Schema,
    /// Something that we do not know.
    Unknown,
}

fn read(notice: &str) -> Told {
    if notice == "schema" {
        return Told::Schema;
    }
    let words: Vec<&str> = notice.split(' ').collect();
    let read = || {
        let (server, rest) = words.split_first()?;
        let (number, rest) = rest.split_first()?;
        let touched = match rest {
            ["rows", plugin] => Touched::Rows((*plugin).to_owned()),
            ["definition", plugin] => Touched::Definition((*plugin).to_owned()),
            ["products"] => Touched::Products,
            ["catalogue"] => Touched::Catalogue,
            _ => return None,
        };
        Some(Told::Written(
            server.parse().ok()?,
            number.parse().ok()?,
            touched,
        ))
    };
    read().unwrap_or(Told::Unknown)
}

/// Moves what the notices tell of that have come.
async fn heed(core: &Core, ear: &mut Ear, first: Option<String>) -> Result<(), StoreError> {
    let (mut catalogue, mut changed) = (false, false);
    let mut next = first.or_else(|| ear.notices.try_recv().ok());
    while let Some(notice) = next {
        next = ear.notices.try_recv().ok();
        match read(&notice) {
            Told::Written(server, number, _)
                if server == core.server && core.is_expected(number) => {}
            Told::Written(_, _, touched) => match touched {
                Touched::Nothing => {}
                Touched::Rows(plugin) => core.shared.rows_moved(&plugin),
                Touched::Definition(plugin) => {
                    core.shared.rows_moved(&plugin);
                    changed = true;
                }
                Touched::Products => core.shared.products_moved(),
                Touched::Catalogue => catalogue = true,
            },
            Told::Schema => core.check_schema().await?,
            Told::Unknown => {
                core.take_snapshot().await?;
                core.shared.all_moved();
            }
        }
    }
    if catalogue {
        core.take_snapshot().await?;
        changed = true;
    }
    if changed {
        core.shared.changed();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_back_and_a_foreign_one_is_unknown() {
        let server = Uuid::new_v4();
        for (what, touched) in [
            ("rows Snowflake", Touched::Rows("Snowflake".to_owned())),
            ("definition S3", Touched::Definition("S3".to_owned())),
            ("products", Touched::Products),
            ("catalogue", Touched::Catalogue),
        ] {
            let read = read(&format!("{server} 7 {what}"));
            assert_eq!(read, Told::Written(server, 7, touched));
        }
        assert_eq!(read("schema"), Told::Schema);
        for unknown in ["", "x", "x 7 products", &format!("{server} 7 weather")] {
            assert_eq!(read(unknown), Told::Unknown, "{unknown}");
        }
    }
}
