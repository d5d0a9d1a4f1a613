//! How the fence goes when it is not needed any more: narrowed, taken down, or left empty for the next
//! group.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use pvmigrate_record::names;
use pvmigrate_record::record::Record;
use tokio::time::Instant;

use super::proof::is_shut;
use super::{Fence, State};
use crate::stop::Stop;

/// An API server takes in changes of policies once a second, and then has to compile them.
const POLICIES_ARE_READ: Duration = Duration::from_secs(2);
/// Between two probes of a policy that goes.
const PAUSE: Duration = Duration::from_millis(100);
/// How long nothing may be fenced before the fence that stays can be collected again.
const OWNED_AFTER: Duration = Duration::from_secs(5);

impl Fence {
    /// Narrows the fence to the claims that are still fenced, or takes it down.
    pub async fn tidy(&self) -> Result<(), Stop> {
        self.leave().await?;
        let mut state = self.state.lock().await;
        if self.expected.any() || state.fenced.is_empty() {
            return Ok(());
        }
        state.ownerless = false;
        self.apply(&mut state).await
    }

    /// Takes the fence down, where no claim is fenced any more or is about to be.
    pub async fn leave(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        if self.expected.any() || !state.fenced.is_empty() || !*self.stands.borrow() {
            return Ok(());
        }
        self.take_down(&mut state).await
    }

    /// Gives an empty fence that stays for the next group its owners back: nothing is missing, so
    /// uninstalling may collect it.
    pub(super) async fn own_again(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        let is_empty = state
            .emptied
            .is_some_and(|since| since.elapsed() > OWNED_AFTER);
        if !is_empty || !state.ownerless || !*self.stands.borrow() {
            return Ok(());
        }
        let mut scope = self.scope(&state);
        scope.missing = false;
        let standing = &mut state.standing;
        self.put(&mut standing.binding, scope.binding()).await?;
        self.put(&mut standing.policy, scope.policy()).await?;
        self.put(&mut standing.parameters, scope.parameters())
            .await?;
        state.ownerless = false;
        Ok(())
    }

    pub(super) async fn take_down(&self, state: &mut State) -> Result<(), Stop> {
        let standing = &mut state.standing;
        // The binding first: without it the policy does nothing, and needs no parameters.
        self.remove(&mut standing.binding).await?;
        tokio::try_join!(
            self.remove(&mut standing.webhook),
            self.remove(&mut standing.policy)
        )?;
        state.taken_down = Some(Instant::now());
        state.ownerless = false;
        self.stands.send_replace(false);
        Ok(())
    }

    /// Removes the parameters, where no claim is fenced any more. Not with the policy: as long as
    /// an API server does not know yet that it is gone, it refuses everything for want of them,
    /// this Job's next claim and everybody's pods. Until then they name a sentinel, by which that shows.
    pub async fn close(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        let name = names::fence_claims(&self.config.release());
        let parameters: Api<ServiceAccount> =
            self.cluster.namespaced(&self.config.release_namespace);
        if !state.fenced.is_empty() || self.cluster.get(&parameters, &name).await?.is_none() {
            return Ok(());
        }
        if let Some(moment) = state.taken_down {
            let read = moment + POLICIES_ARE_READ;
            match state.sentinel.take() {
                Some(sentinel) if are_known(&state.servers) => {
                    self.unenforced(&sentinel, &state.servers, read).await?;
                }
                // Whoever is asked through the Service does not speak for the others.
                _ => tokio::time::sleep_until(read).await,
            }
        }
        self.remove(&mut state.standing.parameters).await
    }

    /// Waits until none of these API servers refuses the sentinel any more, or all of them have had
    /// the time to forget the policy.
    async fn unenforced(
        &self,
        sentinel: &Record,
        servers: &[Option<String>],
        read: Instant,
    ) -> Result<(), Stop> {
        let fence = names::fence_object(&self.setting.release);
        for server in servers {
            loop {
                let answer = self.ask(server.as_deref(), sentinel, names::LAYERS).await?;
                if !is_shut(&fence, &answer) || Instant::now() > read {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// Whether each API server can be asked by itself.
fn are_known(servers: &[Option<String>]) -> bool {
    !servers.is_empty() && servers.iter().all(Option::is_some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_if_all_are_and_there_is_one() {
        let one = || Some("https://10.0.0.1:6443".to_string());
        assert!(are_known(&[one(), one()]));
        assert!(!are_known(&[one(), None]));
        assert!(!are_known(&[]), "none was asked yet");
    }
}
