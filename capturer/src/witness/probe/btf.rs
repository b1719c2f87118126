//! The few facts about the running kernel that the programs need, from its own description (BTF): offsets of members in
//! some of its structures, and names of some functions' arguments.
//!
//! aya reads BTF as well, for attaching, but does not return these facts. Not here: anything but names; types are not
//! followed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Kernels built with BTF describe themselves here.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Structures whose members are looked up. Others are skipped.
const STRUCTURES: [&str; 3] = ["task_struct", "files_struct", "fdtable"];

/// The facts that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KernelTypes {
    /// Offset in bytes, by structure and member.
    members: BTreeMap<(String, String), u32>,
    /// By function, the names of its arguments.
    functions: BTreeMap<String, Vec<String>>,
}

impl KernelTypes {
    /// Reads them from a file, keeping the named functions.
    pub fn read(path: &Path, functions: &[&str]) -> Result<KernelTypes> {
        let bytes = std::fs::read(path).with_context(|| format!("no BTF at {}", path.display()))?;
        Self::parse(&bytes, functions).with_context(|| format!("{} is not BTF as known here", path.display()))
    }

    /// Offset of a member in bytes.
    pub fn member(&self, structure: &str, member: &str) -> Result<u32> {
        let key = (structure.to_owned(), member.to_owned());
        let offset = self.members.get(&key).copied();
        offset.with_context(|| format!("this kernel's BTF has no {structure}.{member}"))
    }

    /// The names of a function's arguments; `None` if the kernel does not have the function, or not as one to attach
    /// to.
    pub fn arguments(&self, function: &str) -> Option<&[String]> {
        self.functions.get(function).map(Vec::as_slice)
    }

    fn parse(bytes: &[u8], functions: &[&str]) -> Result<KernelTypes> {
        const MAGIC: u32 = 0xeb9f;
        let word = |at: usize| -> Result<u32> {
            let four = bytes.get(at..at + 4).context("it ends early")?;
            Ok(u32::from_le_bytes(four.try_into().expect("four bytes")))
        };
        ensure!(word(0)? & 0xffff == MAGIC, "its magic number is another");
        let header_bytes = word(4)? as usize;
        let types_at = header_bytes + word(8)? as usize;
        let types_end = types_at + word(12)? as usize;
        let strings_at = header_bytes + word(16)? as usize;
        let name = |offset: u32| -> Result<&str> {
            let rest = bytes.get(strings_at + offset as usize..).context("a name lies outside")?;
            let end = rest.iter().position(|byte| *byte == 0).context("a name has no end")?;
            std::str::from_utf8(&rest[..end]).context("a name is not text")
        };

        let mut found = KernelTypes::default();
        // By type number: where the arguments of a prototype are listed, and how many.
        let mut prototypes: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
        let mut wanted: Vec<(String, u32)> = Vec::new();
        let (mut at, mut number) = (types_at, 0_u32);
        while at < types_end {
            number += 1;
            let (name_at, info, size_or_type) = (word(at)?, word(at + 4)?, word(at + 8)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let has_bit_fields = info >> 31 == 1;
            let list = at + 12;
            at = list + list_bytes(kind, count)?;
            match kind {
                STRUCT if STRUCTURES.contains(&name(name_at)?) => {
                    for index in 0..count {
                        let member = list + 12 * index;
                        let bits = word(member + 8)?;
                        // With bit fields, the upper byte is a field's width.
                        let bits = if has_bit_fields { bits & 0x00ff_ffff } else { bits };
                        let key = (name(name_at)?.to_owned(), name(word(member)?)?.to_owned());
                        found.members.insert(key, bits / 8);
                    }
                }
                FUNCTION => {
                    let function = name(name_at)?;
                    if functions.contains(&function) {
                        wanted.push((function.to_owned(), size_or_type));
                    }
                }
                PROTOTYPE => {
                    prototypes.insert(number, (list, count));
                }
                _ => {}
            }
        }
        for (function, prototype) in wanted {
            let (list, count) = *prototypes.get(&prototype).context("a function has no prototype")?;
            let names: Result<Vec<String>> =
                (0..count).map(|index| Ok(name(word(list + 8 * index)?)?.to_owned())).collect();
            found.functions.insert(function, names?);
        }
        Ok(found)
    }
}

const STRUCT: u32 = 4;
const FUNCTION: u32 = 12;
const PROTOTYPE: u32 = 13;

/// Length of what follows a type's three words, by its kind (include/uapi/linux/btf.h). An unknown kind has an unknown
/// length, so a new one ends the reading and the tiers that need it.
fn list_bytes(kind: u32, count: usize) -> Result<usize> {
    Ok(match kind {
        // void, pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        0 | 2 | 7 | 8 | 9 | 10 | 11 | FUNCTION | 16 | 18 => 0,
        // integer, variable, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        // struct, union, section, 64-bit enum
        STRUCT | 5 | 15 | 19 => 12 * count,
        // enum, prototype
        6 | PROTOTYPE => 8 * count,
        _ => anyhow::bail!("type kind {kind} is not known here"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A description with one structure and one function, written by hand.
    fn small() -> Vec<u8> {
        let strings = b"\0fdtable\0fd\0filp_close\0id\0";
        let types: [u32; 15] = [
            1,
            (STRUCT << 24) | 1,
            16,
            9,
            0,
            64, // struct fdtable { fd at bit 64 }
            0,
            (PROTOTYPE << 24) | 1,
            0,
            23,
            0, // (id)
            12,
            FUNCTION << 24,
            2,
            0, // filp_close; the last word is cut off below
        ];
        let mut bytes = Vec::new();
        let types_bytes = 14 * 4;
        for word in [0x0001_eb9f, 24, 0, types_bytes, types_bytes, strings.len() as u32] {
            bytes.extend(u32::to_le_bytes(word));
        }
        types[..14].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members_and_arguments_are_found() {
        let types = KernelTypes::parse(&small(), &["filp_close"]).unwrap();
        assert_eq!(types.member("fdtable", "fd").unwrap(), 8);
        assert!(types.member("fdtable", "max_fds").unwrap_err().to_string().contains("fdtable.max_fds"));
        assert_eq!(types.arguments("filp_close").unwrap(), ["id"]);
        assert_eq!(types.arguments("filp_flush"), None);
    }

    #[test]
    fn a_cut_description_is_an_error() {
        let bytes = small();
        for end in 0..bytes.len() - 4 {
            assert!(KernelTypes::parse(&bytes[..end], &["filp_close"]).is_err(), "cut at {end}");
        }
        let mut odd = small();
        odd[24 + 7] = 31;
        assert!(KernelTypes::parse(&odd, &[]).is_err());
    }
}
