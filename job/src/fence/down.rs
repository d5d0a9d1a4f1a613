//! How the fence goes when it is not needed any more: narrowed, taken down, or left empty for the next
//! group.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use pvmigrate_record::names;
use tokio::time::Instant;

use super::{Fence, State};
use crate::stop::Stop;

/// An API server takes in changes of policies once a second, and then has to compile them.
const POLICIES_ARE_READ: Duration = Duration::from_secs(2);
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
    /// this Job's next claim and everybody's pods.
    pub async fn close(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        let name = names::fence_claims(&self.config.release());
        let parameters: Api<ServiceAccount> =
            self.cluster.namespaced(&self.config.release_namespace);
        if !state.fenced.is_empty() || self.cluster.get(&parameters, &name).await?.is_none() {
            return Ok(());
        }
        if let Some(moment) = state.taken_down {
            tokio::time::sleep_until(moment + POLICIES_ARE_READ).await;
        }
        self.remove(&mut state.standing.parameters).await
    }
}
