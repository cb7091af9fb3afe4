import Foundation
import SquintConversion
import SquintFile
import Testing

/// What ChatTS's processors, which are programs, write in front of a series is read from them where it is plainly there.
@Suite struct ChatTSProgramTests {
  private static let checkpoint =
    ConverterFixture.folder.appendingPathComponent("series/chatts-qwen2/checkpoint").path
  private static let usual = "[Value Offset: {offset}|Value Scaling: {scaling}]"

  /// A checkpoint with these programs, planned, or why not.
  private func planned(_ programs: [String: String]) throws -> (prefix: String?, notes: [String], error: SquintError?) {
    try withFolder { folder in
      for name in try contents(of: Self.checkpoint) {
        try FileManager.default.createSymbolicLink(
          atPath: "\(folder)/\(name)", withDestinationPath: "\(Self.checkpoint)/\(name)")
      }
      for (name, text) in programs { try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(name)")) }
      var notes: [String] = []
      let error = squintError { notes = try planConversion(ConversionSources(folder)).notes }
      guard error == nil else { return (nil, [], error) }
      try convert(ConversionSources(folder), to: "\(folder)/m.squint")
      let prefix = try ModelFile(path: "\(folder)/m.squint").metadata.string("series.unit_prefix")
      return (prefix, notes.filter { $0.contains("stands in front of a series") }, nil)
    }
  }

  /// A function that writes what `lines` make.
  private func program(_ lines: String) -> String {
    let body = lines.split(separator: "\n", omittingEmptySubsequences: false).map { "    \($0)\n" }.joined()
    return """
      # A comment's "quote, and f"[{-mean:.4f}]<ts>"
      def sp_encoding(timeseries: np.ndarray, eots_token: bool = True):
          '''It's for `{-mean:.4f}`<ts>.'''
          mean = np.mean(timeseries)
      \(body)

      class Qwen3TSProcessor(ProcessorMixin):
          def __call__(self, text, timeseries, prompt=None):
              for idx, prompt in enumerate(text):
                  prompt_segments = prompt.split("<ts><ts/>")
                  placeholder_expansion = "<ts>" * (num_patches - 1)
                  reconstructed_prompt += ts_prompt + placeholder_expansion + prompt_segments[i + 1]
              raise ValueError(
                  f"Mismatch between <ts><ts/> placeholders ({total_ts_cnt}) "
                  f"and time series ({len(encoded_ts_arrays)})."
              )

      """
  }

  @Test func whatIsPlain() throws {
    let two = "[offset={offset}|scaling={scaling}]"
    let cases: [(lines: String, expected: String)] = [
      // As published.
      (
        #"""
        prompt = f"[offset={-mean:.4f}|scaling={scale_factor:.4f}|length={len(timeseries)}|max={max(timeseries):.4f}|min={min(timeseries):.4f}|left={timeseries[0]:.4f}|right={timeseries[-1]:.4f}]<ts>"
        if eots_token:
            prompt += '<ts/>'

        return result_timeseries, prompt, {"offset": float(-mean), "scale_factor": float(scale_factor)}
        """#,
        "[offset={offset}|scaling={scaling}|length={length}|max={max}|min={min}|left={left}|right={right}]"
      ),
      (#"prompt = f"[Value Offset: {-mean:.4f}|Value Scaling: {scale_factor:.4f}]<ts><ts/>""#, Self.usual),
      (#"prompt = f"[offset={-mean:.4f}" f"|scaling={scale_factor:.4f}]<ts>""#, two),
      ("prompt = (f'[offset={-mean:.4f}'  # one\n          '|scaling='\n  F\"{scale_factor:.4f}]\" \"<ts>\")", two),
      (#"prompt = f"[offset={-mean:.4f}" + f"|scaling={scale_factor:.4f}]" + '<ts>'"#, two),
      (#"prompt = '[offset=' + (f"{-mean:.4f}" + ("|scaling=" f'{ scale_factor :.4f}')) + ']<ts>' + "<ts/>""#, two),
      (#"prompt: str = rf'''[offset={-mean:.4f}|scaling={scale_factor:.4f}]<ts>'''"#, two),
      ("prompt = f\"[offset={-mean:.4f}\" \\\n  f\"|scaling={scale_factor:.4f}]<ts>\"", two),
      (#"return scaled, f"[offset={-mean:.4f}|scaling={scale_factor:.4f}]<ts>", {"a": [1, 2]}"#, two),
      (#"return (scaled, (f"[offset={-mean:.4f}|scaling={scale_factor:.4f}]<ts><ts/>"))"#, two),
      (#"prompt = f"\x5boffset={-mean:.4f}|\u0073caling={scale_factor:.4f}]<ts>"; return prompt + "<ts/>""#, two),
      (#"prompt = f"'{-mean:.4f}'\t\"{np.max(timeseries):.4f}\"\n<ts>""#, "'{offset}'\t\"{max}\"\n"),
      (#"prompt = f"Größe {-mean:.4f}<ts>""#, "Größe {offset}"),
      // The same twice, and in a branch.
      (
        "if a:\n    prompt = f\"[{-mean:.4f}]<ts>\"\n\ndef other():\n    x = f'[{-mean:.4f}]<ts>'\n    return x",
        "[{offset}]"
      ),
    ]
    for (lines, expected) in cases {
      let found = try planned(["processing_qwen3_ts.py": program(lines)])
      #expect(found.prefix == "{title}\(expected)", "\(lines): \(found.error?.message ?? "")")
      #expect(found.notes.isEmpty)
    }
    let crlf = program(#"prompt = f"[offset={-mean:.4f}|scaling={scale_factor:.4f}]<ts>""#)
      .replacingOccurrences(of: "\n", with: "\r\n")
    #expect(try planned(["processing_a.py": crlf]).prefix == "{title}\(two)")
  }

  /// Never silently another text.
  @Test func whatIsNotPlain() throws {
    let long = String(repeating: "x", count: 240)
    let cases: [(lines: String, line: Int, reason: String)] = [
      (#"prompt = f"[offset={-mu:.4f}]<ts>" if 0 else f"[{-mean:.4f}]<ts>""#, 5, "it depends on a condition"),
      (#"prompt = f"[offset={-mean:.4f}|scaling={factor:.4f}]<ts>""#, 5, "{factor:.4f} is not known in it; known are"),
      (#"prompt = f"[offset={-mean:.2f}]<ts>""#, 5, "{-mean:.2f} is not known in it"),
      (#"prompt = f"[offset={-mean:.4f}|{timeseries.std()}]<ts>""#, 5, "{timeseries.std()} is not known"),
      (#"prompt = f"[{offset:.4f}|{scaling:.4f}]<ts>""#, 5, "{offset:.4f} is not known"),
      (#"prompt = "[offset={:.4f}|scaling={:.4f}]<ts>".format(-mean, scale_factor)"#, 5, "a method is called on it"),
      (#"prompt = "[Offset {a:.4f}|Scaling {b:.4f}]".format(a=-mean, b=scale) + end"#, 5, "a method is called on it"),
      (#"prompt = "[offset=%.4f|scaling=%.4f]<ts>" % (-mean, scale_factor)"#, 5, "it is formatted with %"),
      (#"prompt = f"[offset={-mean:.4f}" + scaling + "]<ts>""#, 5, "something is added to it that is no text"),
      (#"prompt = head + f"|scaling={scale_factor:.4f}]<ts>""#, 5, "it is added to something that is no text"),
      (#"prompt = "[offset=" + format(-mean, ".4f") + "]" + "<ts>""#, 5, "it is added to something that is no text"),
      (#"prompt = "".join(["[offset=", str(-mean), "]<ts>"])"#, 5, "what becomes of it is not plain"),
      (#"prompt = "[offset=" + str(offset) + "]<ts>""#, 5, "it is added to something that is no text"),
      (
        #"prompt = f"[offset={-mean:.4f}|scaling={scale_factor:.4f}]""# + "\nprompt += \"<ts>\"", 5,
        "line 6 makes something else"
      ),
      (#"prompt = f"[offset={-mean:.4f}|scaling={scale_factor:.4f}]""#, 5, "it does not end with <ts>"),
      (
        #"prompt = f"[offset={-mean:.4f}]<ts>""# + "\nif a:\n    prompt = 'x' + prompt", 5,
        "line 7 makes something else"
      ),
      ("prompt = ''\nif a:\n    prompt = f\"[{-mean:.4f}]<ts>\"", 7, "line 5 makes something else of prompt"),
      (
        #"prompt = f"[offset={-mean:.4f}]<ts>""# + "\nprompt = prompt.replace('a', 'b')", 5,
        "line 6 makes something else"
      ),
      (#"prompt = f"[offset={-mean:.4f}]<ts>""# + "\nreturn f\"Series: {prompt}\"", 5, "line 6 makes something else"),
      (#"prompt = f"[offset={-mean:.4f}]<ts>""# + "\nreturn prompt + '<ts/>' + more", 5, "line 6 makes something else"),
      (#"prompt += f"[offset={-mean:.4f}]<ts>""#, 5, "what becomes of it is not plain"),
      (#"prompt = dedent(f"[offset={-mean:.4f}]<ts>")"#, 5, "what becomes of it is not plain"),
      (#"prompt = "".join(["[", f"{-mean:.4f}", "]<ts>"])"#, 5, "what becomes of it is not plain"),
      (#"prompt = f"[offset={-mean:.4f}]<ts> then""#, 5, "there is more behind <ts>"),
      (#"prompt = f"{{offset={-mean:.4f}}}<ts>""#, 5, "there are braces in it"),
      ("prompt = f\"\\N{BULLET} {-mean:.4f}<ts>\"", 5, "a part of it is no plain text"),
      (#"prompt = f"[\#(long){-mean:.4f}]<ts>""#, 5, "240 is the most"),
      ("prompt = (\n    f'[offset={-mean:.4f}'\n    f'|scaling={s}]<ts>'\n)", 7, "{s} is not known"),
    ]
    for (lines, line, reason) in cases {
      let found = try planned(["processing_qwen3_ts.py": program(lines)])
      let message = found.error?.message ?? "accepted: \(found.prefix ?? "")"
      #expect(message.contains("processing_qwen3_ts.py: line \(line): "), "\(lines): \(message)")
      #expect(message.contains(reason), "\(lines): \(message)")
      #expect(found.error?.kind == .badData)
    }
    let open = try planned(["processing_a.py": "x = 1\ny = 'never\n"])
    #expect(open.error?.message.contains("processing_a.py: line 2: a text is not closed") == true)
  }

  /// What is assumed is said, and two texts are one too many.
  @Test func noneAndSeveral() throws {
    let none = try planned([:])
    #expect(none.prefix == "{title}\(Self.usual)")
    #expect(none.notes.count == 1 && none.notes[0].contains("there is no processing_*.py"))
    let silent = try planned(["processing_a.py": "from .encoding import sp_encoding\n"])
    #expect(silent.prefix == "{title}\(Self.usual)")
    #expect(silent.notes.count == 1 && silent.notes[0].contains("processing_a.py: it does not say"))
    let differ = try planned([
      "processing_a.py": program(#"prompt = f"[a {-mean:.4f}]<ts>""#),
      "processing_b.py": program(#"prompt = f"[b {-mean:.4f}]<ts>""#),
    ])
    let message = differ.error?.message ?? "accepted"
    #expect(message.contains("processing_b.py: line 5: this writes another text"), "\(message)")
    #expect(message.contains("processing_a.py: line 5"), "\(message)")
  }
}
