//! The stateless-reset key: how a restarted daemon tells its peers at once that their connections are gone.
//!
//! QUIC derives a reset token for each connection id from this key (RFC 9000, 10.3). It must outlive the process, so it
//! comes from outside; connection ids are recognised after a restart by the same key.

use std::sync::Arc;

use quinn::crypto::{CryptoError, HmacKey};
use rustls::crypto::tls13::{Hkdf, OkmBlock};

/// HMAC over a key that the daemon keeps in its data directory.
pub(crate) struct ResetKey {
    key: [u8; 64],
    hmac: &'static dyn Hkdf,
    tag_len: usize,
}

impl ResetKey {
    /// `None` if the crypto provider has no TLS 1.3 suite to take the HMAC from, which ours always has.
    pub(crate) fn new(key: [u8; 64]) -> Option<Arc<Self>> {
        let provider = rustls::crypto::ring::default_provider();
        let hmac = provider
            .cipher_suites
            .iter()
            .find_map(|suite| suite.tls13())?
            .hkdf_provider;
        let tag_len = hmac.hmac_sign(&OkmBlock::new(&key), b"").as_ref().len();
        Some(Arc::new(Self { key, hmac, tag_len }))
    }

    /// A number that depends on the whole key: what connection ids are recognised by.
    pub(crate) fn cid_key(&self) -> u64 {
        let tag = self
            .hmac
            .hmac_sign(&OkmBlock::new(&self.key), b"tradewind connection ids");
        tag.as_ref()
            .iter()
            .take(8)
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = self.hmac.hmac_sign(&OkmBlock::new(&self.key), data);
        signature_out.copy_from_slice(tag.as_ref());
    }

    fn signature_len(&self) -> usize {
        self.tag_len
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = self.hmac.hmac_sign(&OkmBlock::new(&self.key), data);
        let tag = tag.as_ref();
        // All bytes are looked at whatever they hold, so that time tells nothing about the tag.
        let differ = tag.iter().zip(signature).fold(0, |acc, (a, b)| acc | (a ^ b));
        if tag.len() == signature.len() && differ == 0 {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_accepted_only_whole_and_under_its_own_key() {
        let one = ResetKey::new([1; 64]).unwrap();
        let two = ResetKey::new([2; 64]).unwrap();
        let mut tag = vec![0; one.signature_len()];
        one.sign(b"cid", &mut tag);
        assert!(one.verify(b"cid", &tag).is_ok());
        assert!(one.verify(b"cid", &tag[1..]).is_err());
        assert!(two.verify(b"cid", &tag).is_err());
        assert_ne!(one.cid_key(), two.cid_key());
    }
}
