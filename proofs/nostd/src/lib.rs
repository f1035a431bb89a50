//! Verifies a proof where there is no standard library, only an allocator.
#![no_std]

use core::{
    alloc::{GlobalAlloc, Layout},
    panic::PanicInfo,
};

use anwansi_proofs::{Digest, Evidence, Policy, Proof, Root};

/// Gives nothing: this library is linked, not run.
struct Nothing;

// SAFETY: a null pointer is a legal answer of `alloc`, and so nothing ever comes back to `dealloc`.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: Nothing = Nothing;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// Whether `length` bytes at `proof` lead to the 32 bytes at `root`.
///
/// # Safety
/// Both must be readable for as long as said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn verify(proof: *const u8, length: usize, root: *const [u8; 32]) -> bool {
    // SAFETY: the caller vouches for both.
    let (proof, root) = unsafe { (core::slice::from_raw_parts(proof, length), Root(Digest(*root))) };
    Proof::decode(proof).is_ok_and(|proof| proof.verify(&root).is_ok())
}

/// Whether the evidence in `length` bytes stands under the policy in `policy_length` bytes.
///
/// # Safety
/// As of [`verify`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn check(
    evidence: *const u8,
    length: usize,
    policy: *const u8,
    policy_length: usize,
) -> bool {
    // SAFETY: the caller vouches for both.
    let (evidence, policy) = unsafe {
        (
            core::slice::from_raw_parts(evidence, length),
            core::slice::from_raw_parts(policy, policy_length),
        )
    };
    let Ok(policy) = core::str::from_utf8(policy) else { return false };
    Policy::parse(policy)
        .is_ok_and(|policy| Evidence::parse(evidence).is_ok_and(|it| it.check(&policy).is_ok()))
}
