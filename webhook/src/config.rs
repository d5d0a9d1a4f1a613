//! What the webhook is told by its environment.

use std::net::SocketAddr;
use std::time::Duration;

use pvmigrate_record::record::Release;
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

use crate::rotation::Lives;

const DAY: u64 = 24 * 60 * 60;

/// Each field is an environment variable with the prefix `PVMIGRATE_`; the chart sets them.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// The Helm release whose records are the fence.
    pub release: String,
    /// The namespace of the release, of the webhook and of its Secret.
    pub namespace: String,
    /// The Service that the API server calls: the name in the certificate.
    pub service: String,
    /// The Secret that holds the CA; it is made when there is none.
    pub ca_secret: String,
    /// How many seconds the CA lasts, and the certificates from it; each is renewed at two thirds.
    #[serde(default = "ten_years")]
    pub ca_seconds: u64,
    #[serde(default = "thirty_days")]
    pub leaf_seconds: u64,
    /// How many seconds a new CA is published before certificates are issued by it, and the old
    /// one after that.
    #[serde(default = "ten_minutes")]
    pub ca_settle_seconds: u64,
    /// The webhook's Deployment, which owns the Secret: uninstalling collects it.
    pub owner: String,
    /// Where to listen; without it, port 8443 of every address, IPv6 too where there is one.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
    /// A level for this program, or a filter as tracing-subscriber's `EnvFilter` reads it.
    #[serde(default = "info")]
    pub log: String,
    #[serde(default)]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Config {
    pub fn from_env() -> Result<Self, envy::Error> {
        Self::from_pairs(std::env::vars())
    }

    /// A variable that is set to nothing is not set.
    fn from_pairs(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, envy::Error> {
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        let config: Self = envy::prefixed("PVMIGRATE_").from_iter(pairs)?;
        // The last third of a CA has to hold a whole rotation.
        if config.ca_settle_seconds == 0 || config.ca_seconds / 6 < config.ca_settle_seconds {
            return Err(envy::Error::Custom(format!(
                "PVMIGRATE_CA_SETTLE_SECONDS is {}: it must be at least 1, and at most a sixth of PVMIGRATE_CA_SECONDS ({})",
                config.ca_settle_seconds, config.ca_seconds
            )));
        }
        if config.leaf_seconds == 0 {
            let why = "PVMIGRATE_LEAF_SECONDS is 0: it must be at least 1";
            return Err(envy::Error::Custom(why.into()));
        }
        Ok(config)
    }

    pub fn lives(&self) -> Lives {
        Lives {
            authority: Duration::from_secs(self.ca_seconds),
            leaf: Duration::from_secs(self.leaf_seconds),
            settle: Duration::from_secs(self.ca_settle_seconds),
        }
    }

    pub fn release(&self) -> Release {
        Release {
            namespace: self.namespace.clone(),
            name: self.release.clone(),
        }
    }

    /// A bare level is for this program: of its libraries, debug is thousands of frames.
    pub fn log_filter(&self) -> String {
        match self.log.parse::<LevelFilter>() {
            Ok(level) => format!("warn,pvmigrate_webhook={level}"),
            Err(_) => self.log.clone(),
        }
    }

    /// The names that the API server, and anybody in the cluster, reach the webhook by.
    pub fn dns_names(&self) -> [String; 2] {
        let host = format!("{}.{}.svc", self.service, self.namespace);
        [host.clone(), host + ".cluster.local"]
    }
}

fn info() -> String {
    "info".into()
}

fn ten_years() -> u64 {
    3650 * DAY
}

fn thirty_days() -> u64 {
    30 * DAY
}

fn ten_minutes() -> u64 {
    600
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Config, envy::Error> {
        let required = ["RELEASE", "NAMESPACE", "SERVICE", "CA_SECRET", "OWNER"];
        Config::from_pairs(
            required
                .iter()
                .map(|key| (format!("PVMIGRATE_{key}"), key.to_lowercase()))
                .chain(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()))),
        )
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let config = parse(&[("PVMIGRATE_LISTEN", "")]).unwrap();
        assert_eq!(config.listen, None);
        assert_eq!(config.log, "info");
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(config.lives().authority, Duration::from_secs(315_360_000));
        assert_eq!(config.lives().leaf, Duration::from_secs(2_592_000));
        assert_eq!(config.lives().settle, Duration::from_secs(600));
        assert_eq!(
            config.dns_names(),
            [
                "service.namespace.svc",
                "service.namespace.svc.cluster.local"
            ]
        );
    }

    #[test]
    fn every_setting_can_be_set() {
        let config = parse(&[
            ("PVMIGRATE_LISTEN", "[::1]:9443"),
            ("PVMIGRATE_LOG", "debug"),
            ("PVMIGRATE_LOG_FORMAT", "json"),
        ])
        .unwrap();
        assert_eq!(config.listen, Some("[::1]:9443".parse().unwrap()));
        assert_eq!(config.log_filter(), "warn,pvmigrate_webhook=debug");
        assert_eq!(config.log_format, LogFormat::Json);
    }

    #[test]
    fn lives_that_leave_no_time_for_a_rotation_are_refused() {
        let error = |pairs| parse(pairs).unwrap_err().to_string();
        assert_eq!(
            error(&[("PVMIGRATE_CA_SECONDS", "3599")]),
            "PVMIGRATE_CA_SETTLE_SECONDS is 600: it must be at least 1, and at most a sixth of PVMIGRATE_CA_SECONDS (3599)"
        );
        assert_eq!(
            error(&[("PVMIGRATE_LEAF_SECONDS", "0")]),
            "PVMIGRATE_LEAF_SECONDS is 0: it must be at least 1"
        );
        assert!(parse(&[("PVMIGRATE_CA_SECONDS", "3600")]).is_ok());
    }

    #[test]
    fn a_log_filter_is_taken_as_it_is() {
        let config = parse(&[("PVMIGRATE_LOG", "info,kube=debug")]).unwrap();
        assert_eq!(config.log_filter(), "info,kube=debug");
    }

    #[test]
    fn a_missing_setting_is_named() {
        let pairs = [("RELEASE", "r"), ("NAMESPACE", "")];
        let pairs = pairs.map(|(key, value)| (format!("PVMIGRATE_{key}"), value.to_string()));
        let error = Config::from_pairs(pairs.into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "missing value for field namespace");
    }
}
