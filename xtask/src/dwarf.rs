//! Debugging information of the compiled probes, which ends here.

use anyhow::Result;
use object::build::elf::Builder;

/// The linker makes BTF from DWARF, which nothing reads after it: three quarters of the object.
pub(crate) fn stripped(object: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(object)?;
    for section in &mut elf.sections {
        let name = section.name.as_slice();
        section.delete = [&b".debug_"[..], b".rel.debug_"].iter().any(|it| name.starts_with(it));
    }
    elf.delete_orphans();
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}
