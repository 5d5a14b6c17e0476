//! The CRC-32C, checksum of SCTP (RFC 9260 section 6.8 and appendix A): computed eight bytes at a time, and updated for a
//! change of the ports without a look at the data, so that what arrived broken leaves broken.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][b]`: the register after byte `b` and `n` bytes of zero.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ (POLYNOMIAL & (register & 1).wrapping_neg());
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// `POWERS[n]`: x to the power of 2^n.
static POWERS: [u32; 32] = powers();

const fn powers() -> [u32; 32] {
    let mut powers = [0; 32];
    powers[0] = 1 << 30;
    let mut n = 1;
    while n < 32 {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
}

/// The product of two polynomials, reflected, modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 1u32 << 31);
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

/// A register, fed piece by piece.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc32c {
    /// The register after more bytes.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut register = self.0;
        for word in words {
            let [a, b, c, d] = (register ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]])).to_le_bytes();
            let of = |table: usize, byte: u8| TABLES[table][byte as usize];
            register = of(7, a)
                ^ of(6, b)
                ^ of(5, c)
                ^ of(4, d)
                ^ of(3, word[4])
                ^ of(2, word[5])
                ^ of(1, word[6])
                ^ of(0, word[7]);
        }
        for byte in rest {
            register = (register >> 8) ^ TABLES[0][usize::from(register as u8 ^ byte)];
        }
        Self(register)
    }

    /// The checksum as it stands in an SCTP header: the register's complement, lowest byte first.
    pub const fn field(self) -> [u8; 4] {
        (!self.0).to_le_bytes()
    }
}

/// The checksum field after four bytes became others, when `behind` bytes follow them.
pub fn updated(field: [u8; 4], old: [u8; 4], new: [u8; 4], behind: usize) -> [u8; 4] {
    let difference = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    let mut register = Crc32c(0).with(&difference.to_le_bytes()).0;
    // Bytes of zero behind it multiply it by x^8 each.
    let (mut left, mut power) = (behind, 3);
    while left > 0 {
        if left & 1 == 1 {
            register = multiply(POWERS[power % POWERS.len()], register);
        }
        (left, power) = (left >> 1, power + 1);
    }
    (u32::from_le_bytes(field) ^ register).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, bit by bit.
    fn naive(bytes: &[u8]) -> u32 {
        let step = |register: u32, _| (register >> 1) ^ if register & 1 == 1 { POLYNOMIAL } else { 0 };
        !bytes.iter().fold(!0, |register: u32, byte| (0..8).fold(register ^ u32::from(*byte), step))
    }

    #[test]
    fn the_values_of_rfc_3720() {
        let of = |bytes: &[u8]| u32::from_le_bytes(Crc32c::default().with(bytes).field());
        assert_eq!(of(b"123456789"), 0xe306_9283);
        assert_eq!(of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(of(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(of(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn eight_at_a_time_is_bit_by_bit(bytes in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>()) {
            let (left, right) = bytes.split_at(at.index(bytes.len() + 1));
            let ours = Crc32c::default().with(left).with(right).field();
            prop_assert_eq!(u32::from_le_bytes(ours), naive(&bytes));
        }

        #[test]
        fn an_update_is_a_new_computation(mut bytes in prop::collection::vec(any::<u8>(), 12..2000), new in any::<[u8; 4]>()) {
            let before = Crc32c::default().with(&bytes).field();
            let old: [u8; 4] = *bytes.first_chunk().unwrap();
            bytes[..4].copy_from_slice(&new);
            let after = updated(before, old, new, bytes.len() - 4);
            prop_assert_eq!(after, Crc32c::default().with(&bytes).field());
        }
    }
}
