import SquintConversion
import SquintFile
import Testing

/// What a preprocessor_config.json of sounds may say.
@Suite struct SoundConfigurationTests {
  private func configuration(_ json: String) throws(SquintError) -> SoundConfiguration {
    try SoundConfiguration(
      huggingFace: JSONValue(parsing: json, name: "preprocessor_config.json"), place: "preprocessor_config.json")
  }

  @Test func whisper() throws {
    let read = try configuration(#"{"sampling_rate": 16000, "n_fft": 400, "hop_length": 160, "feature_size": 80}"#)
    #expect([read.rate, read.fft, read.hop, read.mels] == [16_000, 400, 160, 80])
  }

  /// What Squint would refuse to hear is refused here.
  @Test(arguments: [
    (#"{"sampling_rate": 8000}"#, "sampling_rate 8000"), (#"{"n_fft": 401}"#, "n_fft 401"),
    (#"{"hop_length": 24}"#, "n_fft 400 is more than 16 times hop_length, 24"),
    (#"{"hop_length": 401}"#, "hop_length"), (#"{"padding_value": 1}"#, "padding_value"),
    (#"{"feature_size": 0}"#, "feature_size"),
  ]) func refusals(_ json: String, _ part: String) {
    let error = squintError { try configuration(json) }
    #expect(error?.message.hasPrefix("preprocessor_config.json: ") == true)
    #expect(error?.message.contains(part) == true)
  }
}
