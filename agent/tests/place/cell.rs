//! A seeded cell of real node cores under one placer after another.
