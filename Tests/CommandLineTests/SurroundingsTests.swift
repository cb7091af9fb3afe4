import Foundation
import SquintFile
import Testing

/// What the system around the programs may be: without /proc, with little of everything, with names that are not UTF-8.
@Suite struct SurroundingsTests {
  private static let image = fixtures.appendingPathComponent("vision/pictures/square.png").path
  private static let checkpoint = fixtures.appendingPathComponent("models/llama-llama3").path
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  /// Runs a line of shell in which `$SQUINT` and `$CONVERT` are the programs.
  private func run(_ line: String, _ arguments: [String] = []) throws -> Outcome {
    let convert = RunningProgram.squint.deletingLastPathComponent().appendingPathComponent("squint-convert").path
    return try shell("export CONVERT='\(convert)'; \(line)", arguments)
  }

  private func expectOneLine(_ outcome: Outcome, _ status: Int32, _ part: String = "", _ what: String = "") {
    #expect(outcome.status == status, "\(what): \(outcome.error)")
    #expect(outcome.error.filter { $0 == "\n" }.count == 1, "\(what): \(outcome.error)")
    #expect(outcome.error.contains(part), "\(what): \(outcome.error)")
  }

  // MARK: Without /proc

  @Test func withoutProc() throws {
    #if os(Linux)
      let hidden = #"mount --make-rprivate / && umount -l /proc"#
      // Only root may have it so.
      guard try run("unshare -m sh -c '\(hidden)' 2> /dev/null").status == 0 else { return }
      let out = "\(folder.path)/m.squint"
      for (line, status) in [
        (#""$SQUINT" tokenize squint-nano hello --json"#, 0), (#""$SQUINT" ask --image "$1" --max-tokens 2"#, 0),
        (#""$SQUINT" plan"#, 0), (#""$SQUINT" verify"#, 0), (#""$SQUINT" bench -p 4 -n 2 --rounds 1"#, 0),
        (#""$SQUINT" ask --image /dev/fd/9 --max-tokens 2 9< "$1""#, 0), (#""$SQUINT" nonsense"#, 64),
        (#""$CONVERT" "$2" -o "$3""#, 0), (#""$CONVERT" --nonsense"#, 64), (#""$CONVERT""#, 64),
      ] as [(String, Int32)] {
        let outcome = try run(
          "exec unshare -m sh -c '\(hidden); \(line) < /dev/null' sh \"$@\"", [Self.image, Self.checkpoint, out])
        #expect(outcome.status == status, "\(line): \(outcome.error)")
        #expect(outcome.output.isEmpty == (status != 0), "\(line): \(outcome.text)")
      }
    #endif
  }

  // MARK: Names

  /// Bytes that are no UTF-8, and what shells and formats find hard.
  private static let names = [
    #"$(printf 'caf\351')"#, #"$(printf '\377\300\257 \342\202')"#, "a name with spaces", #"$(printf 'two\nlines')"#,
    "-o", "$(printf '%0200d' 7)", "Grüße 你好",
  ]

  @Test(arguments: names) func namesOfFiles(_ name: String) throws {
    let outcome = try run(
      #"""
      set -e; cd "$1"; name="\#(name)"; mkdir ./"$name"; cd ./"$name"
      cp -r "$2" ./"$name.checkpoint"; cp "$3" ./"$name.png"
      "$CONVERT" ./"$name.checkpoint" -o ./"$name.squint" > /dev/null
      "$CONVERT" --decoder="$PWD/$name.checkpoint" -o "$PWD/$name.2" > /dev/null
      "$SQUINT" verify ./"$name.2" > /dev/null
      "$SQUINT" verify ./"$name.squint" > /dev/null
      "$SQUINT" inspect ./"$name.squint" --json > /dev/null
      "$SQUINT" ask --image=./"$name.png" --max-tokens 2 < /dev/null > /dev/null
      "$SQUINT" embed --image=./"$name.png" --output=./"$name.npy"
      "$SQUINT" plan --svg=./"$name.svg" > /dev/null
      printf '/image %s\nWhat?\n/save %s\n' "./$name.png" "./$name.txt" | "$SQUINT" chat --max-tokens 2 > /dev/null
      ls -1b | wc -l
      """#, [folder.path, Self.checkpoint, Self.image])
    // In a conversation a line is a name's end.
    let isOneLine = !name.contains(#"\n"#)
    #expect(outcome.status == 0, "\(outcome.error)")
    #expect(outcome.error.isEmpty == isOneLine, "\(outcome.error)")
    if isOneLine { #expect(outcome.text == "7\n") }
  }

  @Test func namesInMessages() throws {
    let outcome = try run(#""$SQUINT" verify "$(printf '/nowhere/caf\351')""#)
    #expect(outcome.error == "squint: /nowhere/caf\\xE9: No such file or directory\n")
    let conversion = try run(#""$CONVERT" "$(printf '/nowhere/caf\351')" -o x"#)
    #expect(conversion.error == "squint-convert: /nowhere/caf\\xE9: No such file or directory\n")
    #expect(
      try run(#"mkdir "$1/d"; cd "$1/d"; "$SQUINT" tokenize squint-nano "$(printf 'caf\351')""#, [folder.path]).text
        == squint("tokenize", "squint-nano", "caf\u{FFFD}").text)
  }

  // MARK: Little of everything

  /// A stack, a number of descriptors or processes, an address space, a length of files that is small: it works, or one line says
  /// why not. Nothing crashes, hangs or stays behind.
  @Test(arguments: ["-s 64", "-s 256", "-n 4", "-n 6", "-n 12", "-f 0", "-f 20", "-v 60000", "-v 150000", "-v 400000"])
  func limits(_ limit: String) throws {
    for (line, worker) in [
      (#""$SQUINT" ask --image "$1" --max-tokens 2 --threads 2 < /dev/null"#, "squint: "),
      (#""$SQUINT" embed --image "$1" -o "$3/o.npy""#, "squint: "),
      (#""$CONVERT" "$2" -o "$3/m.squint" --jobs 2"#, "squint-convert: "),
    ] {
      let outcome = try run(
        "ulimit \(limit) && exec timeout 60 \(line)", [Self.image, Self.checkpoint, folder.path])
      // Where the shell cannot open /dev/null, or the loader cannot map libraries, the program has not begun.
      if [2, 126, 127].contains(outcome.status) { continue }
      if limit.hasPrefix("-s") { #expect(outcome.status == 0, "\(line): \(outcome.error)") }
      #expect([0, 65, 66, 69, 73, 74].contains(outcome.status), "\(limit) \(line): \(outcome.status) \(outcome.error)")
      if outcome.status != 0 {
        #expect(outcome.error.hasPrefix(worker) && outcome.error.filter { $0 == "\n" }.count == 1, "\(outcome.error)")
      }
      #expect(!folder.contents.contains { $0.contains(".partial-") }, "\(limit) \(line): \(folder.contents)")
    }
  }

  @Test func noThreads() throws {
    // Root may start as many as it likes; another user may not.
    guard getuid() == 0, try run("command -v setpriv > /dev/null").status == 0 else { return }
    let user = 61_234
    let out = "\(folder.path)/m.squint"
    try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: folder.path)
    let limited =
      "exec timeout 60 setpriv --reuid \(user) --regid \(user) --clear-groups bash -c 'ulimit -u 1; exec \"$@\"' bash"
    let conversion = try run(#"\#(limited) "$CONVERT" "$1" -o "$2" --jobs 2"#, [Self.checkpoint, out])
    // The programs may be where that user cannot go.
    guard conversion.status != 126 else { return }
    #expect(conversion.status == 0, "\(conversion.error)")
    try ModelFile(path: out).verify()
    expectError(
      try run(#"\#(limited) "$SQUINT" ask --threads 2 --image "$1" < /dev/null"#, [Self.image]), 69, "ulimit -u",
      "--threads 1")
    #expect(try run(#"\#(limited) "$SQUINT" ask --threads 1 --max-tokens 1 Hi < /dev/null"#).status == 0)
  }

  // MARK: Files that may not grow

  /// A file that may not grow so far is an error, not an end without a word.
  @Test func filesThatMayNotGrow() throws {
    let conversion = try run(#"ulimit -f 8; exec "$CONVERT" "$1" -o "$2/m.squint""#, [Self.checkpoint, folder.path])
    expectOneLine(conversion, 73, "File too large")
    let logits = try run(
      #"ulimit -f 8; exec "$SQUINT" logits --prompt "$(printf '%0200d' 7)" -o "$1/o.npy""#, [folder.path])
    expectOneLine(logits, 74, "File too large")
    #expect(folder.contents.isEmpty)
  }

  // MARK: Languages and folders

  @Test(arguments: [
    "LANG=C", "LC_ALL=tr_TR.UTF-8", "-u LANG -u LC_ALL", "-i", "HOME= TMPDIR=/nowhere", "-u HOME TMPDIR=/proc",
  ])
  func environments(_ environment: String) throws {
    let plain = try squint(
      "ask", "--image", Self.image, "Is it green? GRÖSSE İI", "--json", "--max-tokens", "4", "--threads", "1")
    let outcome = try run(
      #"""
      squint=$SQUINT convert=$CONVERT; mkdir "$2/d"; cd "$2/d"; chmod 555 .
      env \#(environment) "$squint" ask --image "$1" 'Is it green? GRÖSSE İI' --json --max-tokens 4 --threads 1 < /dev/null
      env \#(environment) "$convert" "$3" -o "$2/m.squint" > /dev/null
      """#, [Self.image, folder.path, Self.checkpoint])
    #expect(outcome.status == 0 && outcome.error.isEmpty, "\(outcome.error)")
    #expect(try outcome.json()["tokens"] as? [Int] == plain.json()["tokens"] as? [Int])
  }

  /// What is given as an input and is none: one line, with the code of inputs.
  @Test func strangeInputs() throws {
    _ = try run(
      #"cd "$1"; mkfifo pipe; ln -s nowhere dangling; ln -s loop loop; mkdir dir; : > empty; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'"#,
      [folder.path])
    let long = String(repeating: "x", count: 5000)
    for name in ["pipe", "dangling", "loop", "dir", "socket", "/dev/null", "/dev/zero", "none/x", "empty/x", long] {
      for line in [
        #""$SQUINT" verify "$1""#, #""$SQUINT" ask "$1" Hi"#, #""$SQUINT" plan "$1""#, #""$SQUINT" tokenize "$1" Hi"#,
        #""$SQUINT" ask --image "$1" Hi"#, #""$SQUINT" embed --image "$1" -o o.npy"#, #""$CONVERT" "$1" -o m.squint"#,
        #""$CONVERT" --decoder "$1" -o m.squint"#, #""$CONVERT" "$2" --encoder image="$1" -o m.squint"#,
        #""$CONVERT" "$2" --adapter "$1" -o m.squint"#,
      ] {
        // Nobody will write into the pipe: an image there is waited for some seconds, once here.
        if name == "pipe", line.contains("embed") { continue }
        let outcome = try run("cd '\(folder.path)'; exec timeout 20 \(line) < /dev/null", [name, Self.checkpoint])
        #expect([65, 66].contains(outcome.status), "\(line) \(name.prefix(20)): \(outcome.status) \(outcome.error)")
        #expect(outcome.error.filter { $0 == "\n" }.count == 1, "\(line) \(name.prefix(20)): \(outcome.error)")
      }
    }
    #expect(folder.contents == ["dangling", "dir", "empty", "loop", "pipe", "socket"])
    // Sources are read at many places, which a pipe cannot be.
    expectOneLine(try run(#"cd "$1"; "$CONVERT" pipe -o m.squint"#, [folder.path]), 66, "save it as a file")
    expectOneLine(
      try run(#"exec bash -c '"$CONVERT" <(echo) -o "$0/m.squint"' "$1""#, [folder.path]), 66, "save it as a file")
  }

  @Test func strangeOutputs() throws {
    _ = try run(#"cd "$1"; mkfifo pipe; mkdir dir"#, [folder.path])
    for name in ["pipe", "dir", "/dev/null", "none/x", "", String(repeating: "x", count: 5000), "/proc/x"] {
      for line in [
        #""$SQUINT" embed --image "$2" -o "$1""#, #""$SQUINT" logits --prompt Hi -o "$1""#,
        #""$SQUINT" plan --svg "$1""#,
        #""$CONVERT" "$3" -o "$1""#,
      ] {
        let outcome = try run("cd '\(folder.path)'; exec timeout 20 \(line)", [name, Self.image, Self.checkpoint])
        #expect(outcome.status == 73, "\(line) \(name.prefix(20)): \(outcome.status) \(outcome.error)")
        #expect(outcome.error.filter { $0 == "\n" }.count == 1 && outcome.output.isEmpty, "\(outcome.error)")
      }
    }
    #expect(folder.contents == ["dir", "pipe"])
  }
}
