//! Deliberate faults, to see that the simulator notices them: one line each, beside the line that is right. They exist in
//! builds with `--cfg mutants` only; in all others [`mutant!`] is `false` and costs nothing.

/// Whether this fault is switched on.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::is_mutant($name)
    };
}

/// See [`mutant!`].
#[cfg(not(mutants))]
#[doc(hidden)]
#[inline(always)]
pub const fn is_mutant(_name: &str) -> bool {
    false
}

/// See [`mutant!`].
#[cfg(mutants)]
#[doc(hidden)]
pub fn is_mutant(name: &str) -> bool {
    ON.with_borrow(|on| *on == name)
}

#[cfg(mutants)]
thread_local! {
    static ON: std::cell::RefCell<&'static str> = const { std::cell::RefCell::new("") };
}

/// Switches one fault on, in this thread, and all others off.
#[cfg(mutants)]
#[doc(hidden)]
pub fn switch_mutant(name: &'static str) {
    ON.set(name);
}
