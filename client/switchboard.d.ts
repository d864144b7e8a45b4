// The types of the client library.
export {};
