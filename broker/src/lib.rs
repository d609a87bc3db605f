//! The broker: doors that only translate, operations that decide. Must never know file formats.
