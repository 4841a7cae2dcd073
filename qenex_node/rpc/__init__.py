"""JSON-RPC over HTTP and WebSocket: what clients ask a node, and the limits under which they are answered."""
