//! Whole clients against simulated brokers.
