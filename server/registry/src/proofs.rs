//! What is known of whether migrations are undone by their `down`: tried on a scratch database, and kept by what was tried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use patchbay_plugin::definition::Definition;
use patchbay_plugin::migration::{AppliedMigration, Migration, PendingMigration, plan};
use patchbay_store::proof::{Proof, prove};
use sha2::{Digest, Sha256};

/// What is said of a step while nobody knows whether it is reversible.
pub const NOT_PROVED_YET: &str = "it is not proved yet; ask again";

/// How long one answer may try steps that are not proved yet. What is left says so, and is tried for the next answer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// Proofs, by the hash of the steps up to the one that was tried and of the examples.
#[derive(Clone, Default)]
pub(crate) struct Proofs(Arc<Mutex<HashMap<[u8; 32], Proof>>>);

/// What an answer says of a step. Only a proof makes it reversible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) reversible: bool,
    pub(crate) reason: Option<String>,
}

impl Claim {
    fn not(reason: impl Into<String>) -> Claim {
        Claim {
            reversible: false,
            reason: Some(reason.into()),
        }
    }
}

/// Tries one of the steps that run, in order, with the examples of the plugin.
pub(crate) fn prove_step(
    ran: &[&Migration],
    place: usize,
    definition: Option<&Definition>,
) -> Proof {
    let (main, examples) = match definition {
        Some(definition) => (definition.table.as_ref(), &definition.examples[..]),
        None => (None, &[][..]),
    };
    prove(ran, place, main, examples)
}

impl Proofs {
    /// What can be said of each step of a history and of what is pending after it. Steps that were not tried before are
    /// tried until the deadline.
    pub(crate) fn claims(
        &self,
        definition: Option<&Definition>,
        history: &[AppliedMigration],
        pending: &[PendingMigration],
        deadline: Instant,
    ) -> Vec<Claim> {
        let steps = history
            .iter()
            .map(|step| (&step.migration, step.origin))
            .chain(pending.iter().map(|step| (&step.migration, step.origin)));
        let mut ran: Vec<&Migration> = Vec::new();
        let mut hash = Sha256::new();
        if let Some(definition) = definition {
            let examples = serde_json::to_vec(&definition.examples).unwrap_or_default();
            hash.update(examples);
        }
        steps
            .map(|(migration, origin)| {
                if !origin.runs() {
                    return Claim::not(
                        "it did not run: the table was made from newer fields, and is taken back as a whole",
                    );
                }
                ran.push(migration);
                hash.update(migration.checksum());
                let key: [u8; 32] = hash.clone().finalize().into();
                match self.proof(key, &ran, definition, deadline) {
                    None => Claim::not(NOT_PROVED_YET),
                    Some(Proof::Reversible) => Claim {
                        reversible: true,
                        reason: None,
                    },
                    Some(proof) => Claim::not(proof.reason().unwrap_or_default()),
                }
            })
            .collect()
    }

    fn proof(
        &self,
        key: [u8; 32],
        ran: &[&Migration],
        definition: Option<&Definition>,
        deadline: Instant,
    ) -> Option<Proof> {
        let kept = |this: &Self| {
            let proofs = this.0.lock().unwrap_or_else(PoisonError::into_inner);
            proofs.get(&key).cloned()
        };
        if let Some(proof) = kept(self) {
            return Some(proof);
        }
        if Instant::now() >= deadline {
            return None;
        }
        let proof = prove_step(ran, ran.len() - 1, definition);
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, proof.clone());
        Some(proof)
    }
}

/// Which written `down`s of a definition do not do what they are for, on an empty database: a sentence each, with the step
/// and what differs. It tries them, which takes milliseconds.
pub fn wrong_downs(definition: &Definition) -> Vec<String> {
    let planned = plan(definition, &[]).map(|plan| plan.pending);
    let ran: Vec<&Migration> = match &planned {
        Ok(pending) => pending
            .iter()
            .filter(|step| step.origin.runs())
            .map(|step| &step.migration)
            .collect(),
        // The fields want more than the steps give; that is said elsewhere, and the steps can be tried all the same.
        Err(_) => definition.migrations.iter().collect(),
    };
    (0..ran.len())
        .filter(|place| ran[*place].down.is_some())
        .filter_map(|place| match prove_step(&ran, place, Some(definition)) {
            Proof::WrongDown(reason) => {
                let id = &ran[place].id;
                let file = ran[place].path.as_deref().unwrap_or("migrations");
                Some(format!(
                    "{file}: the `down` of the migration {id} does not restore what `up` changed: {reason}"
                ))
            }
            Proof::Reversible | Proof::Irreversible(_) => None,
        })
        .collect()
}
