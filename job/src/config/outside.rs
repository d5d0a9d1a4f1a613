//! What a run outside the cluster, which no chart has configured, takes for what was left open.

use super::{Config, ConfigError};

/// The image that was built together with this program, if whoever built it said which.
pub const IMAGE: &str = match option_env!("PVMIGRATE_BUILD_IMAGE") {
    Some(image) => image,
    None => "",
};

impl Config {
    /// Fills in what the environment of this process tells. `namespace` is the client's own.
    pub fn settle(mut self, namespace: &str) -> Result<Self, ConfigError> {
        let set = |field: &mut String, value: String| {
            if field.is_empty() {
                *field = value;
            }
        };
        let fullname = fullname(&self.release);
        set(&mut self.release_namespace, namespace.into());
        set(&mut self.webhook_service, format!("{fullname}-webhook"));
        set(&mut self.ca_secret, format!("{fullname}-webhook-ca"));
        set(&mut self.pod, holder());
        if self.image.is_empty() {
            return Err(ConfigError::missing("image"));
        }
        Ok(self)
    }
}

/// As the chart calls what it makes for a release, unless a value says otherwise.
fn fullname(release: &str) -> String {
    if release.contains("pvmigrate") {
        return release.into();
    }
    format!("{release}-pvmigrate")
}

/// Who holds the Lease: told from other processes, here and on other hosts.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.as_deref().map_or("outside", str::trim);
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn outside_the_cluster_the_charts_own_names_are_taken() {
        let parsed = |release: &str| {
            let named = [("PVMIGRATE_SOURCE_SC", "a"), ("PVMIGRATE_DEST_SC", "b")];
            let named = named.into_iter().chain([
                ("PVMIGRATE_RELEASE", release),
                ("PVMIGRATE_IMAGE", "pvmigrate:dev"),
            ]);
            parse(&named.collect::<Vec<_>>(), &[])
                .unwrap()
                .settle("here")
                .unwrap()
        };
        let config = parsed("");
        assert_eq!(config.release().namespace, "here");
        assert_eq!(config.release().name, "pvmigrate");
        assert_eq!(config.webhook_service, "pvmigrate-webhook");
        assert_eq!(config.ca_secret, "pvmigrate-webhook-ca");
        assert!(config.pod.ends_with(&std::process::id().to_string()));
        assert_eq!(parsed("shop").ca_secret, "shop-pvmigrate-webhook-ca");
    }

    #[test]
    fn an_image_has_to_be_named_where_none_was_built_in() {
        let named = [("PVMIGRATE_SOURCE_SC", "a"), ("PVMIGRATE_DEST_SC", "b")];
        let settled = parse(&named, &[]).unwrap().settle("here");
        if super::IMAGE.is_empty() {
            assert_eq!(
                settled.unwrap_err().to_string(),
                "PVMIGRATE_IMAGE or --image is missing: set one of them, or use the chart, which does"
            );
        } else {
            assert_eq!(settled.unwrap().image, super::IMAGE);
        }
    }
}
