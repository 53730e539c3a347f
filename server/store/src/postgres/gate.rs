//! What lets calls in, and waits for them when the store is closed.

use tokio::sync::watch;

use crate::engine::WAITING;
use crate::error::StoreError;

/// Counts what runs, so that closing can wait for it.
pub(super) struct Gate(watch::Sender<Running>);

#[derive(Default)]
struct Running {
    closed: bool,
    count: usize,
}

/// One that runs.
pub(super) struct Entered(watch::Sender<Running>);

impl Gate {
    pub(super) fn new() -> Gate {
        Gate(watch::Sender::new(Running::default()))
    }

    pub(super) fn enter(&self) -> Result<Entered, StoreError> {
        let mut result = Ok(());
        self.0.send_if_modified(|running| {
            result = match running {
                Running { closed: true, .. } => Err(StoreError::Closed),
                Running { count, .. } if *count >= WAITING => Err(StoreError::Busy),
                Running { count, .. } => {
                    *count += 1;
                    Ok(())
                }
            };
            false
        });
        result.map(|()| Entered(self.0.clone()))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Lets nothing more in, and waits for what is in.
    pub(super) async fn close(&self) {
        self.0.send_modify(|running| running.closed = true);
        let mut running = self.0.subscribe();
        // The sender is our own, so it cannot be gone.
        let _all_out = running.wait_for(|running| running.count == 0).await;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.send_if_modified(|running| {
            running.count -= 1;
            running.closed && running.count == 0
        });
    }
}
