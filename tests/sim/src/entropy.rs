//! Random numbers: a generator for everything that the simulation decides, and the operating system's own, replaced.
//!
//! Hash tables and Tokio's `select!` draw their order from the operating system, and TLS its keys, on which it depends how
//! QUIC takes a datagram of a connection that is gone. The functions here take the place of the C library's in this
//! program, so that all of that repeats, too. Nothing else in the repository needs unsafe code.

#![allow(unsafe_code, reason = "stands in for functions of the C library")]

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tradewind_wire::clock::Rng;

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

static SYSTEM: AtomicU64 = AtomicU64::new(0);

/// Makes the operating system's random numbers follow from `seed`.
pub fn seed_system(seed: u64) {
    SYSTEM.store(seed, Ordering::Relaxed);
}

/// `getrandom(2)`, with numbers that follow from the seed.
///
/// # Safety
/// `buffer` must be valid for writes of `length` bytes, as for the function that it stands in for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    for at in 0..length {
        let number = mix(SYSTEM.fetch_add(STEP, Ordering::Relaxed));
        // SAFETY: `at < length`, and the caller vouches for `length` bytes.
        unsafe { buffer.cast::<u8>().add(at).write(number as u8) };
    }
    length as isize
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

#[cfg(target_arch = "x86_64")]
const SYS_GETRANDOM: c_long = 318;
#[cfg(target_arch = "aarch64")]
const SYS_GETRANDOM: c_long = 278;

/// `syscall(2)`, of which only `getrandom` is answered here.
///
/// # Safety
/// As for the function that it stands in for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == SYS_GETRANDOM {
        // SAFETY: the arguments are those of `getrandom`, for which the caller vouches.
        return unsafe { getrandom(a as *mut c_void, b as usize, c as c_uint) } as c_long;
    }
    let result: c_long;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel's calling convention; the caller vouches for the arguments.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            inlateout("x0") a => result,
            in("x8") number, in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack)
        );
    }
    if (-4095..0).contains(&result) {
        // SAFETY: the C library's own place for this thread's error number.
        unsafe { *__errno_location() = -result as c_int };
        return -1;
    }
    result
}

/// SplitMix64's finish: numbers that differ little come out unrelated.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers.
#[derive(Debug)]
pub struct Dice(Mutex<u64>);

impl Dice {
    /// The stream of `seed` for one purpose; purposes with different names do not disturb each other.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let name = purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(Mutex::new(mix(seed.wrapping_add(STEP)) ^ name))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *state = state.wrapping_add(STEP);
        mix(*state)
    }

    /// A number of `from..to`; `from` if that is empty.
    pub fn range(&self, from: u64, to: u64) -> u64 {
        from + self.next() % to.saturating_sub(from).max(1)
    }

    /// True this often in a million.
    pub fn chance(&self, per_million: u64) -> bool {
        self.next() % 1_000_000 < per_million
    }

    /// One of `all`, unless there is none.
    pub fn pick<'a, T>(&self, all: &'a [T]) -> Option<&'a T> {
        all.get((self.next() % all.len().max(1) as u64) as usize)
    }
}

impl Rng for Dice {
    fn next_u64(&self) -> u64 {
        self.next()
    }
}
