// What `import Squint` brings of the modules below: the types that are in its API, and nothing else of them.
@_exported import enum SquintCompute.KVType
@_exported import class SquintFile.Cancellation
@_exported import struct SquintFile.SquintError
@_exported import struct SquintTemplates.ChatMessage
