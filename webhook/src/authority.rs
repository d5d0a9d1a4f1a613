//! The webhook's own certificate authority, and the certificates that it issues.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::pem::parse_x509_pem;

/// How far an API server's clock may lag behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A CA in the form that its Secret has: two PEM texts that were found to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub certificate: String,
    pub key: String,
    /// To the second, as all times of a certificate.
    pub made: Timestamp,
    pub expires: Timestamp,
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
    /// A new CA, for as long as `life`.
    pub fn create(name: &str, life: Duration, now: Timestamp) -> Result<Self, Error> {
        // Rounded up: what follows from its time shall not come early.
        let now = Timestamp::from_second(now.as_second() + i64::from(now.subsec_nanosecond() > 0));
        let now = now.map_err(|_| Error::Certificate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = SystemTime::from(now - CLOCK_SKEW).into();
        params.not_after = SystemTime::from(now + life).into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Self::parse(&certificate, key.serialize_pem())
    }

    /// The one among some certificates that this key is of. Guarantees that what is issued from it
    /// is accepted by whoever has that certificate, for as long as it lasts.
    pub fn parse(certificates: &str, key: String) -> Result<Self, Error> {
        let pair = KeyPair::from_pem(&key).map_err(Error::Key)?;
        let mut why = Error::Certificate;
        for text in each_certificate(certificates) {
            let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| Error::Certificate)?;
            let parsed = pem.parse_x509().map_err(|_| Error::Certificate)?;
            if *parsed.public_key().subject_public_key.data != *pair.public_key_raw() {
                why = Error::Mismatch;
                continue;
            }
            let time = |seconds| Timestamp::from_second(seconds).map_err(|_| Error::Certificate);
            let validity = parsed.validity();
            return Ok(Self {
                certificate: format!("{text}\n"),
                key,
                made: time(validity.not_before.timestamp())? + CLOCK_SKEW,
                expires: time(validity.not_after.timestamp())?,
            });
        }
        Err(why)
    }

    /// A certificate for these names, to be renewed at two thirds of its life.
    pub fn issue(&self, names: &[String], life: Duration, now: Timestamp) -> Result<Leaf, Error> {
        if self.expires <= now {
            return Err(Error::Expired(self.expires));
        }
        let key = KeyPair::from_pem(&self.key).map_err(Error::Key)?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key)?;
        let expires = self.expires.min(now + life);
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

/// The texts of several PEM certificates, each by itself.
fn each_certificate(texts: &str) -> impl Iterator<Item = &str> {
    texts
        .split_inclusive("-----END CERTIFICATE-----")
        .filter_map(|text| Some(&text[text.find("-----BEGIN CERTIFICATE-----")?..]))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests;
