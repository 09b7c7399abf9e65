//! Connector and dense cross-attention.
