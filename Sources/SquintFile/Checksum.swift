import CXXHash

/// XXH3-64 of `bytes`, seed 0.
package func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 { XXH3_64bits(bytes.baseAddress, bytes.count) }

/// XXH3-64 of bytes that arrive in pieces.
package struct StreamingChecksum: ~Copyable {
  private let state: OpaquePointer

  package init() {
    state = XXH3_createState()
    XXH3_64bits_reset(state)
  }

  deinit { XXH3_freeState(state) }

  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    XXH3_64bits_update(state, bytes.baseAddress, bytes.count)
  }

  package var value: UInt64 { XXH3_64bits_digest(state) }
}
