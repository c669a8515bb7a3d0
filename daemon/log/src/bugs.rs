//! A mistake that others have made in this place, put back by the feature `known-bugs` to see whether the simulation finds
//! it. Without the feature, as in every daemon, nobody has it, and the compiler removes the question.

#[cfg(feature = "known-bugs")]
thread_local! {
    static PRODUCERS_SURVIVE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// From now on the logs of this thread remember what producers wrote in a part that is cut off.
#[cfg(feature = "known-bugs")]
pub fn let_producers_survive() {
    PRODUCERS_SURVIVE.set(true);
}

/// Whether what producers wrote is remembered although it was cut off.
#[cfg(feature = "known-bugs")]
pub(crate) fn producers_survive() -> bool {
    PRODUCERS_SURVIVE.get()
}

/// Whether what producers wrote is remembered although it was cut off.
#[cfg(not(feature = "known-bugs"))]
pub(crate) const fn producers_survive() -> bool {
    false
}
