//! The webhook's own certificate authority, and the certificates that it issues.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::pem::parse_x509_pem;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
const LEAF_LIFE: Duration = DAY.saturating_mul(30);
/// How far an API server's clock may lag behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// The CA in the form that its Secret has: two PEM texts that were found to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub certificate: String,
    pub key: String,
    expires: Timestamp,
}

/// A certificate for the webhook's names, with its key.
pub struct Leaf {
    pub certificate: CertificateDer<'static>,
    pub key: KeyPair,
    pub renew_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the CA's certificate is not a PEM certificate")]
    Certificate,
    #[error("the CA's key cannot be read")]
    Key(#[source] rcgen::Error),
    #[error("the CA's key is not the key of its certificate")]
    Mismatch,
    #[error("the CA expired at {0}")]
    Expired(Timestamp),
    #[error("no certificate could be made")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// A new CA, valid for ten years.
    pub fn create(name: &str, now: Timestamp) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = SystemTime::from(now - CLOCK_SKEW).into();
        params.not_after = SystemTime::from(now + AUTHORITY_LIFE).into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Self::parse(certificate, key.serialize_pem(), now)
    }

    /// Guarantees that certificates issued from it are accepted: the key is the certificate's,
    /// and the certificate has not ended.
    pub fn parse(certificate: String, key: String, now: Timestamp) -> Result<Self, Error> {
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| Error::Certificate)?;
        let parsed = pem.parse_x509().map_err(|_| Error::Certificate)?;
        let pair = KeyPair::from_pem(&key).map_err(Error::Key)?;
        if *parsed.public_key().subject_public_key.data != *pair.public_key_raw() {
            return Err(Error::Mismatch);
        }
        let expires = Timestamp::from_second(parsed.validity().not_after.timestamp())
            .map_err(|_| Error::Certificate)?;
        if expires <= now {
            return Err(Error::Expired(expires));
        }
        Ok(Self {
            certificate,
            key,
            expires,
        })
    }

    /// A certificate of 30 days for these names, to be renewed at two thirds of its life.
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Leaf, Error> {
        if self.expires <= now {
            return Err(Error::Expired(self.expires));
        }
        let key = KeyPair::from_pem(&self.key).map_err(Error::Key)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key)?;
        let expires = self.expires.min(now + LEAF_LIFE);
        let mut params = CertificateParams::new(names)?;
        // The names are in the SAN. A common name holds 64 characters, fewer than they may have.
        params.distinguished_name = common_name("pvmigrate-webhook");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = SystemTime::from(now - CLOCK_SKEW).into();
        params.not_after = SystemTime::from(expires).into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Leaf {
            certificate: certificate.der().clone(),
            key,
            renew_at: now + now.duration_until(expires) * 2 / 3,
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests;
