//! End-to-end tests of Minium. The tests themselves are one integration-test binary, `e2e`; this library is empty.
