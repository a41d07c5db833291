//! Synthetic tabletop scenes with ground truth.
