//! Ed25519 signatures: the only file that checks them.
//!
//! RFC 8032 leaves room for verifiers that disagree. Here, and in every port of this crate, a
//! signature is checked without the cofactor, S is below the group's order, neither the key nor R is
//! of small order, and both are the one encoding of their point. One signature at a time: a batch
//! equation accepts what this does not.

use ed25519_dalek::{Signature, VerifyingKey};

/// A key that is the only encoding of its point, which is not of small order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key; `None` if the bytes are no such key.
    ///
    /// # Cost
    /// One decompression and one compression of a point.
    pub(crate) fn parse(bytes: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        // `key.to_bytes()` gives back its input. The point has to be encoded anew to see whether
        // its y was reduced, or its sign bit was that of a zero.
        let encoded = key.to_edwards().compress().to_bytes();
        (encoded == *bytes && !key.is_weak()).then_some(PublicKey(key))
    }

    /// The key's 32 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether `signature` is this key's over `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        // Strict: refuses S >= L, and compares the bytes of R.
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey, Verifier};
    use sha2::{Digest, Sha512};

    use super::*;

    /// The group's order L, little endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn plus_order(scalar: &[u8]) -> [u8; 32] {
        let mut carry = 0;
        core::array::from_fn(|i| {
            let sum = u16::from(scalar[i]) + u16::from(ORDER[i]) + carry;
            carry = sum >> 8;
            sum.to_le_bytes()[0]
        })
    }

    /// The encoding of y = p + `low`, whose canonical form is y = `low`.
    fn unreduced(low: u8) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xed + low;
        bytes[31] = 0x7f;
        bytes
    }

    #[test]
    fn s_plus_the_order_is_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = PublicKey::parse(&key.verifying_key().to_bytes()).unwrap();
        let signature = key.sign(b"text").to_bytes();
        assert!(public.verify(b"text", &signature));
        assert!(!public.verify(b"texT", &signature));
        let mut malleated = signature;
        malleated[32..].copy_from_slice(&plus_order(&signature[32..]));
        assert!(!public.verify(b"text", &malleated));
    }

    #[test]
    fn r_of_small_order_is_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key();
        // With R the identity, S = k a fulfils the equation.
        let mut forged = [0; 64];
        forged[0] = 1;
        let hasher = Sha512::new().chain_update(&forged[..32]).chain_update(public.as_bytes());
        let k = hasher.chain_update(b"text").finalize();
        let secret = key.to_scalar();
        let mut s = secret - secret;
        for bit in (0..512).rev() {
            s += s;
            if k[bit / 8] >> (bit % 8) & 1 == 1 {
                s += secret;
            }
        }
        forged[32..].copy_from_slice(&s.to_bytes());
        assert!(public.verify(b"text", &Signature::from_bytes(&forged)).is_ok());
        assert!(!PublicKey::parse(public.as_bytes()).unwrap().verify(b"text", &forged));
    }

    #[test]
    fn a_key_that_is_not_reduced_is_refused() {
        let reduced: [u8; 32] = core::array::from_fn(|i| if i == 0 { 3 } else { 0 });
        assert_eq!(unreduced(3)[0], 0xf0);
        let (long, short) = (unreduced(3), reduced);
        // Both are one point to the library, and `to_bytes` does not tell them apart.
        let point = VerifyingKey::from_bytes(&long).unwrap();
        assert_eq!(point.to_edwards(), VerifyingKey::from_bytes(&short).unwrap().to_edwards());
        assert_eq!(point.to_bytes(), long);
        assert!(PublicKey::parse(&short).is_some());
        assert!(PublicKey::parse(&long).is_none());
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let order_8 = [
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ];
        let mut keys: alloc::vec::Vec<[u8; 32]> =
            order_8.iter().map(|key| hex::decode(key).unwrap().try_into().unwrap()).collect();
        keys.push([0; 32]);
        keys.push(core::array::from_fn(|i| u8::from(i == 0)));
        keys.push(core::array::from_fn(|i| [0xff, 0xec, 0x7f][usize::from(i == 0) + 2 * (i / 31)]));
        keys.extend([unreduced(0), unreduced(1)]);
        for key in keys {
            for sign in [0, 0x80] {
                let mut bytes = key;
                bytes[31] |= sign;
                let point = VerifyingKey::from_bytes(&bytes);
                assert!(point.is_err() || point.unwrap().is_weak(), "{}", hex::encode(bytes));
                assert!(PublicKey::parse(&bytes).is_none());
            }
        }
    }
}
