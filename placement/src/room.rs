//! What is left of a node for tasks to come: for prod what prod's limits leave, for the others what all together are
//! predicted to leave.
//!
//! Prod never counts on what somebody else may need back, and nobody else's need is in its way: of CPU and memory the
//! others have to give way (DESIGN 5). What a node cannot take back from a running task (disk, ports, devices) is whoever's
//! has it.

use crate::{
    job::Band,
    resources::{CPU, MEMORY, Resources},
};

/// A node's capacity, and what is held of it in the eyes of either side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Room {
    capacity: Resources,
    /// By prod's limits; of what cannot be reclaimed, by all limits.
    prod: Resources,
    /// By all tasks together, as predicted, or by their limits.
    all: Resources,
    predicted: bool,
    /// What is left of these is for prod alone, and how much of each the node keeps.
    short: Resources,
}

/// Whether a node can take it back from a task while that runs, or by evicting it when prod needs it.
pub fn is_reclaimable(resource: &str) -> bool {
    resource == CPU || resource == MEMORY
}

impl Room {
    pub fn new(capacity: &Resources) -> Self {
        Room { capacity: capacity.clone(), ..Room::default() }
    }

    /// A task of the band may use so much.
    pub fn take(&mut self, band: Band, limit: &Resources) {
        for (name, amount) in &limit.0 {
            if band.is_prod() || !is_reclaimable(name) {
                self.prod.raise(name, *amount);
            }
            self.all.raise(name, *amount);
        }
    }

    /// The node has less of these than it keeps for prod.
    pub(crate) fn reserve(&mut self, short: &Resources) {
        self.short = short.clone();
    }

    /// Why a task of the band may not come at all, however little it asks for: the first of those of which what is left is
    /// for prod, and how much of it the node keeps.
    pub fn shuts_out(&self, band: Band) -> Option<(&str, u64)> {
        let (name, kept) = self.short.0.iter().next().filter(|_| !band.is_prod())?;
        Some((name, *kept))
    }

    /// What all that are there are predicted to need takes the place of what they may use. Later ones count at their limits.
    pub(crate) fn predict(&mut self, peak: &Resources) {
        self.predicted = true;
        for (name, amount) in peak.0.iter().filter(|(name, _)| is_reclaimable(name)) {
            self.all.set(name, *amount);
        }
    }

    /// As if a task that was there had ended: it may use so much, and is believed to need as much of it as the second says.
    pub fn give(&mut self, band: Band, limit: &Resources, reservation: &Resources) {
        for (name, amount) in &limit.0 {
            let reclaimable = is_reclaimable(name);
            if band.is_prod() || !reclaimable {
                self.prod.lower(name, *amount);
            }
            let needed = if self.predicted && reclaimable { reservation.get(name) } else { *amount };
            self.all.lower(name, needed);
        }
    }

    /// How much of a resource a task of the band may ask for.
    pub fn of(&self, band: Band, resource: &str) -> u64 {
        if !band.is_prod() && self.short.0.contains_key(resource) {
            return 0;
        }
        let held = if band.is_prod() { &self.prod } else { &self.all };
        self.capacity.get(resource).saturating_sub(held.get(resource))
    }

    /// The same of all resources: what a task to come may ask for.
    pub fn all_of(&self, band: Band) -> Resources {
        let shut = self.shuts_out(band).is_some();
        let of = |name: &str| if shut { 0 } else { self.of(band, name) };
        self.capacity.0.keys().map(|name| (name.as_str(), of(name))).collect()
    }

    /// The first resource, in order of name, of which there is less than a task of the band wants: (name, wanted, here).
    pub fn short_of<'a>(&self, band: Band, wanted: &'a Resources) -> Option<(&'a str, u64, u64)> {
        let of =
            |(name, amount): (&'a alloc::string::String, &u64)| (name.as_str(), *amount, self.of(band, name));
        wanted.0.iter().map(of).find(|(_, amount, here)| amount > here)
    }

    /// Whether the others have to make room for a task that wants so much.
    pub fn displaces(&self, wanted: &Resources) -> bool {
        self.short_of(Band::Free, wanted).is_some()
    }

    pub fn capacity(&self) -> &Resources {
        &self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = crate::resources::DISK;

    fn amounts(cpu: u64, memory: u64, disk: u64) -> Resources {
        [(CPU, cpu), (MEMORY, memory), (DISK, disk)].into_iter().collect()
    }

    #[test]
    fn prod_counts_limits_of_prod_and_the_others_what_is_predicted() {
        let mut room = Room::new(&amounts(1000, 1000, 1000));
        room.take(Band::Production, &amounts(600, 600, 600));
        room.take(Band::Batch, &amounts(500, 300, 300));
        assert_eq!(room.all_of(Band::Production), amounts(400, 400, 100));
        assert_eq!(room.all_of(Band::Batch), amounts(0, 100, 100));
        room.predict(&amounts(450, 650, 5));
        assert_eq!(room.all_of(Band::Free), amounts(550, 350, 100));

        let more = amounts(400, 400, 0);
        assert_eq!(room.short_of(Band::Monitoring, &more), None);
        assert!(room.displaces(&more));
        room.take(Band::Production, &more);
        assert_eq!(room.all_of(Band::Production), amounts(0, 0, 100));
        assert_eq!(room.all_of(Band::Batch), amounts(150, 0, 100));
        // Beyond what there is: what is given back first fills that.
        room.give(Band::Batch, &amounts(500, 300, 300), &amounts(100, 40, 300));
        assert_eq!(room.all_of(Band::Batch), amounts(250, 0, 400));
        room.give(Band::Production, &more, &more);
        assert_eq!(room.all_of(Band::Batch), amounts(650, 390, 400));
    }

    #[test]
    fn what_is_left_of_what_is_short_is_for_prod() {
        let mut room = Room::new(&amounts(1000, 1000, 1000));
        room.reserve(&[(DISK, 50)].into_iter().collect());
        for band in [Band::Free, Band::Batch] {
            assert_eq!(room.shuts_out(band), Some((DISK, 50)));
            assert_eq!(room.all_of(band), amounts(0, 0, 0));
            // Who is there already may have more of the rest.
            assert_eq!(room.short_of(band, &amounts(10, 10, 0)), None);
            assert_eq!(room.short_of(band, &amounts(0, 0, 1)), Some((DISK, 1, 0)));
        }
        assert_eq!(room.shuts_out(Band::Production), None);
        assert_eq!(room.all_of(Band::Production), amounts(1000, 1000, 1000));
    }

    #[test]
    fn a_resource_that_the_node_does_not_have() {
        let room = Room::new(&amounts(1, 1, 1));
        let gpu: Resources = [("gpu", 1)].into_iter().collect();
        assert_eq!(room.short_of(Band::Production, &gpu), Some(("gpu", 1, 0)));
        assert_eq!(room.short_of(Band::Free, &Resources::default()), None);
    }
}
