//! What was read of which text, so that a text that did not change is not read again.
//!
//! Groups are large (a store may hold a hundred thousand rules) and change seldom, while any change in
//! the store asks for all of desired state anew. What is the same as before is the same object in
//! memory, too, so that whoever compiles it can tell by its address that there is nothing to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::problem::Fault;

/// The objects of one kind that could be read, each with its text.
#[derive(Clone, Debug)]
pub(super) struct Readings<I, T>(BTreeMap<I, (Arc<[u8]>, Arc<T>)>);

impl<I, T> Default for Readings<I, T> {
    fn default() -> Self {
        Readings(BTreeMap::new())
    }
}

/// They are a means to an end: two results that differ in nothing else are the same.
impl<I, T> PartialEq for Readings<I, T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<I, T> Eq for Readings<I, T> {}

impl<I: Ord + Copy, T: PartialEq> Readings<I, T> {
    /// The object that this text is, out of `former` if it is the same there, and remembered here.
    pub fn read(
        &mut self,
        former: &Self,
        id: I,
        text: &Arc<[u8]>,
        read: impl FnOnce(&[u8]) -> Result<T, Vec<Fault>>,
    ) -> Result<Arc<T>, Vec<Fault>> {
        let object = match former.0.get(&id) {
            Some((old, object)) if Arc::ptr_eq(old, text) || old == text => Arc::clone(object),
            known => {
                let new = read(text)?;
                match known {
                    Some((_, object)) if **object == new => Arc::clone(object),
                    _ => Arc::new(new),
                }
            }
        };
        self.0.insert(id, (Arc::clone(text), Arc::clone(&object)));
        Ok(object)
    }
}
