//! TLS as the modes of `libpq` have it.

use std::path::Path;
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::{RootCert, SslMode, TlsSettings};

/// Longest file of certificates or of a key that is read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A client that demands what the settings say. Files are read anew each time, as certificates are renewed.
pub(super) async fn client(settings: &TlsSettings) -> Result<TlsConnector> {
    let settings = settings.clone();
    let made = tokio::task::spawn_blocking(move || config(&settings)).await;
    let config = made.map_err(|e| Error::internal("certificates could not be read").with_source(e))??;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn config(settings: &TlsSettings) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifies = match settings.mode {
        SslMode::Disable | SslMode::Prefer => false,
        // As in `libpq`: whoever gives certificates wants them looked at.
        SslMode::Require => settings.root.is_some(),
        SslMode::VerifyCa | SslMode::VerifyFull => true,
    };
    let signed = match &settings.root {
        Some(root) if verifies => Some(signed(root, &provider)?),
        _ => None,
    };
    let full = settings.mode == SslMode::VerifyFull;
    let verifier = Arc::new(Verifier { signed, full, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS has no version").with_source(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &settings.client else { return Ok(builder.with_no_client_auth()) };
    let certificates = certificates(certificate)?;
    let unreadable = |e: rustls::pki_types::pem::Error| {
        Error::invalid_input(format!("{} holds no private key as PEM without a password: {e}", key.display()))
    };
    let key_der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(unreadable)?;
    builder
        .with_client_auth_cert(certificates, key_der)
        .map_err(|e| Error::invalid_input(format!("{} cannot be used: {e}", certificate.display())))
}

fn signed(root: &RootCert, provider: &Arc<CryptoProvider>) -> Result<Signed> {
    let mut store = RootCertStore::empty();
    let (pinned, shown) = match root {
        RootCert::System => {
            let loaded = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(loaded.certs);
            (Vec::new(), "the system".to_owned())
        }
        RootCert::File(file) => {
            let certificates = certificates(file)?;
            store.add_parsable_certificates(certificates.iter().cloned());
            (certificates, file.display().to_string())
        }
    };
    if store.is_empty() {
        return Err(Error::invalid_input(format!(
            "{shown} has no certificate that could be trusted (sslrootcert)"
        )));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|e| Error::invalid_input(format!("the certificates of {shown} cannot be used: {e}")))?;
    Ok(Signed { verifier, pinned })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(file)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::invalid_input(format!("{} holds no certificate as PEM", file.display()))),
        Err(e) => Err(Error::invalid_input(format!("{} holds no certificates as PEM: {e}", file.display()))),
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let unreadable = |e| Error::io(format!("{} cannot be read", file.display()), e);
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{} is too long for certificates or a key", file.display());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(bytes)
}

/// Whom to trust.
#[derive(Debug)]
struct Signed {
    verifier: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted as a server's own.
    pinned: Vec<CertificateDer<'static>>,
}

/// Looks at a server's certificate as far as the mode demands it. That the server has the certificate's key is always demanded.
#[derive(Debug)]
struct Verifier {
    signed: Option<Signed>,
    /// Whether the name must be that of the host.
    full: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(signed) = &self.signed else { return Ok(ServerCertVerified::assertion()) };
        if signed.pinned.iter().any(|pinned| pinned == end_entity) {
            if self.full {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified =
            signed.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last: all else is well.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.full => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
