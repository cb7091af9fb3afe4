import SquintFile

/// A family of encoders of media that are not images, as a folder of its own has one.
struct OtherEncoderFamily: Sendable {
  /// The values of `model_type` in its config.json.
  let modelTypes: [String]
  /// Opens the encoder in a folder with this config.json.
  let open: @Sendable (CheckpointFolder, JSONValue) throws(SquintError) -> OtherEncoder
  /// Opens the encoder in a safetensors file of its own; nil: it has none.
  var openFile: (@Sendable (_ path: String) throws(SquintError) -> OtherEncoder)?
}
