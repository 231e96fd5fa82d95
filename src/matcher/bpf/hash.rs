//! What stands for an account in the map: SipHash-2-4 with 128 bits, as the program computes it.

use crate::account::SipAccount;

/// The key: who does not know it finds no two accounts with the same hash.
pub(super) type Secret = [u8; 16];

/// Of the user part and the domain, each filled up with zeros to whole words, and of their lengths in seven bytes.
pub(super) fn account(secret: &Secret, account: &SipAccount) -> [u8; 16] {
    let (user, domain) = (account.user().as_bytes(), account.domain().as_bytes());
    let mut text = vec![];
    for part in [user, domain] {
        text.extend_from_slice(part);
        text.resize(text.len().next_multiple_of(8), 0);
    }
    for part in [user, domain] {
        let length = u16::try_from(part.len()).expect("no account is so long");
        text.extend(length.to_le_bytes());
    }
    text.extend([0; 3]);
    siphash(secret, &text)
}

fn siphash(secret: &Secret, text: &[u8]) -> [u8; 16] {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (k0, k1) = (word(&secret[..8]), word(&secret[8..]));
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        state[3] ^= word;
        round(&mut state);
        round(&mut state);
        state[0] ^= word;
    };
    let words = text.chunks_exact(8);
    let rest = word(words.remainder());
    words.for_each(|bytes| absorb(word(bytes)));
    absorb(rest | (text.len() as u64) << 56);
    let mut hash = [0; 16];
    for (half, change) in hash.chunks_exact_mut(8).zip([(2, 0xee), (1, 0xdd)]) {
        state[change.0] ^= change.1;
        (0..4).for_each(|_| round(&mut state));
        half.copy_from_slice(&state.into_iter().fold(0, |all, word| all ^ word).to_le_bytes());
    }
    hash
}

fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = state;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_siphash() {
        // The vectors of its authors: the key 00 01 02 ..., the text 00 01 02 ... of this length.
        let secret: Secret = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let text: Vec<u8> = (0..63).collect();
        for (length, wanted) in [
            (0, "a3817f04ba25a8e66df67214c7550293"),
            (1, "da87c1d86b99af44347659119b22fc45"),
            (8, "3b62a9ba6258f5610f83e264f31497b4"),
            (63, "5150d1772f50834a503e069a973fbd7c"),
        ] {
            let wanted = u128::from_str_radix(wanted, 16).unwrap().to_be_bytes();
            assert_eq!(siphash(&secret, &text[..length]), wanted, "{length}");
        }
    }
}
