//! What logging in is bound to: the hash of the server's certificate (RFC 5929, `tls-server-end-point`).

use sha2::{Digest, Sha256, Sha384, Sha512};

/// Algorithms that sign certificates, as DER has their object identifiers, and the hash that a binding has then: that of the
/// signature, or SHA-256 where that is MD5 or SHA-1. For all others no binding is defined, or no server makes one.
const ALGORITHMS: [(&[u8], Hash); 10] = [
    // RSA: MD5, SHA-1, SHA-256, SHA-384, SHA-512.
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x04], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x05], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C], Hash::Sha384),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0D], Hash::Sha512),
    // ECDSA: SHA-1, SHA-256, SHA-384, SHA-512.
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x01], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02], Hash::Sha256),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03], Hash::Sha384),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x04], Hash::Sha512),
    // RSA with SHA-1 under its older name.
    (&[0x2B, 0x0E, 0x03, 0x02, 0x1D], Hash::Sha256),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

#[derive(Debug, Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// The binding to this certificate, given as DER.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, certificate_parts, _) = element(certificate)? else { return None };
    let (SEQUENCE, _, after_content) = element(certificate_parts)? else { return None };
    let (SEQUENCE, algorithm, _) = element(after_content)? else { return None };
    let (OBJECT_IDENTIFIER, identifier, _) = element(algorithm)? else { return None };
    let (_, hash) = ALGORITHMS.iter().find(|(known, _)| *known == identifier)?;
    Some(match hash {
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7F => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            let len = digits
                .iter()
                .try_fold(0_usize, |len, digit| len.checked_mul(256)?.checked_add(usize::from(*digit)))?;
            (len, rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some((*tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate as far as anybody looks at it here.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![OBJECT_IDENTIFIER, identifier.len() as u8];
        algorithm.extend(identifier);
        let mut parts = vec![SEQUENCE, 0x81, 0x02, 7, 7, SEQUENCE, algorithm.len() as u8];
        parts.extend(algorithm);
        let mut all = vec![SEQUENCE, parts.len() as u8];
        all.extend(parts);
        all
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (identifier, len) in
            ALGORITHMS.iter().map(|(id, _)| *id).zip([32, 32, 32, 48, 64, 32, 32, 48, 64, 32])
        {
            assert_eq!(server_end_point(&certificate(identifier)).unwrap().len(), len);
        }
        assert_eq!(server_end_point(&certificate(&[0x2B, 0x65, 0x70])), None, "Ed25519 has none");
    }

    #[test]
    fn what_is_cut_short_has_no_binding() {
        let whole = certificate(ALGORITHMS[2].0);
        for len in 0..whole.len() {
            assert_eq!(server_end_point(&whole[..len]), None);
        }
        assert_eq!(server_end_point(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
    }
}
