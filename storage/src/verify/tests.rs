//! Every kind of damage in every kind of file is found, and nothing else.
