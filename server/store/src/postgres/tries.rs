//! How often work is run, and with what pause.

use std::time::Duration;

use uuid::Uuid;

use super::fault::Again;

/// How often work is run at most.
const TRIES: u32 = 6;
/// How often it is run at most on connections that are lost.
const CONNECTIONS: u32 = 3;

/// How work was tried so far.
#[derive(Default)]
pub(super) struct Tries {
    run: u32,
    lost: u32,
    /// Prepared statements were found out of date, and are made anew.
    pub(super) anew: bool,
}

impl Tries {
    /// Whether it is run once more, after a pause.
    pub(super) async fn another(&mut self, why: Option<Again>) -> bool {
        self.run += 1;
        if self.run >= TRIES {
            return false;
        }
        match why {
            None => return false,
            Some(Again::Outdated) => self.anew = true,
            Some(Again::Lost) => {
                self.lost += 1;
                return self.lost < CONNECTIONS;
            }
            Some(Again::Conflict) => {
                // Those who got in each other's way must not come back together.
                let noise = u64::from(Uuid::new_v4().as_bytes()[0] % 16);
                tokio::time::sleep(Duration::from_millis((1 << self.run) + noise)).await;
            }
        }
        true
    }
}
