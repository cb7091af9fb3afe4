import SquintFile

/// A date and time of day in the Gregorian calendar, as `strftime_now` prints it.
public struct TemplateDate: Sendable, Equatable {
  public var year: Int
  /// 1 to 12.
  public var month: Int
  /// 1 to 31.
  public var day: Int
  public var hour: Int
  public var minute: Int
  public var second: Int
  public var microsecond: Int

  public init(
    year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0, microsecond: Int = 0
  ) {
    self.year = year
    self.month = month
    self.day = day
    self.hour = hour
    self.minute = minute
    self.second = second
    self.microsecond = microsecond
  }

  /// The machine's local time.
  public static func now() -> TemplateDate {
    var clock = timespec()
    clock_gettime(CLOCK_REALTIME, &clock)
    var seconds = clock.tv_sec
    var parts = tm()
    localtime_r(&seconds, &parts)
    return TemplateDate(
      year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday),
      hour: Int(parts.tm_hour), minute: Int(parts.tm_min), second: Int(parts.tm_sec),
      microsecond: Int(clock.tv_nsec) / 1000)
  }

  private static let months = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
  ]
  private static let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

  private var isLeap: Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

  /// 1 for the first of January.
  private var dayOfYear: Int {
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334]
    return before[month - 1] + (isLeap && month > 2 ? 1 : 0) + day
  }

  /// 0 for Monday.
  private var weekday: Int {
    let last = year - 1
    let total = last * 365 + last / 4 - last / 100 + last / 400 + dayOfYear
    return (total + 6) % 7
  }

  /// The year and week of ISO 8601, whose weeks belong to the year that has their Thursday.
  private var isoWeek: (year: Int, week: Int) {
    func weeks(in year: Int) -> Int {
      let first = TemplateDate(year: year, month: 1, day: 1)
      return first.weekday == 3 || (first.weekday == 2 && first.isLeap) ? 53 : 52
    }
    let week = (dayOfYear - weekday + 9) / 7
    if week < 1 { return (year - 1, weeks(in: year - 1)) }
    return week > weeks(in: year) ? (year + 1, 1) : (year, week)
  }

  /// Python's `strftime` in the C locale, with glibc's `-`, `_` and `0` flags. An unknown directive stays as it is.
  package func formatted(_ format: String) -> String {
    guard (1...9999).contains(year), (1...12).contains(month), (1...31).contains(day) else { return "" }
    var result = String.UnicodeScalarView()
    var scalars = format.unicodeScalars.makeIterator()
    while let scalar = scalars.next() {
      guard scalar == "%" else {
        result.append(scalar)
        continue
      }
      var flag: Unicode.Scalar?
      var directive = scalars.next()
      if let next = directive, ["-", "_", "0"].contains(next) {
        flag = next
        directive = scalars.next()
      }
      guard let directive else {
        result.append("%")
        if let flag { result.append(flag) }
        break
      }
      if let text = text(for: directive, flag: flag) {
        result.append(contentsOf: text.unicodeScalars)
      } else {
        result.append("%")
        if let flag { result.append(flag) }
        result.append(directive)
      }
    }
    return String(result)
  }

  private func text(for directive: Unicode.Scalar, flag: Unicode.Scalar?) -> String? {
    func padded(_ value: Int, _ width: Int = 2, with fill: String = "0") -> String {
      let digits = String(value)
      let pad = flag == "-" ? "" : flag == "_" ? " " : flag == "0" ? "0" : fill
      return String(repeating: pad, count: max(0, width - digits.utf8.count)) + digits
    }
    let hour12 = hour % 12 == 0 ? 12 : hour % 12
    let day = Self.days[weekday]
    let month = Self.months[self.month - 1]
    switch directive {
    case "a": return String(day.prefix(3))
    case "A": return day
    case "b", "h": return String(month.prefix(3))
    case "B": return month
    case "c": return formatted("%a %b %e %H:%M:%S %Y")
    case "C": return padded(year / 100)
    case "d": return padded(self.day)
    case "D", "x": return formatted("%m/%d/%y")
    case "e": return padded(self.day, with: " ")
    case "f": return padded(microsecond, 6)
    case "F": return formatted("%Y-%m-%d")
    case "G": return padded(isoWeek.year, 4)
    case "g": return padded(isoWeek.year % 100)
    case "H": return padded(hour)
    case "I": return padded(hour12)
    case "j": return padded(dayOfYear, 3)
    case "k": return padded(hour, with: " ")
    case "l": return padded(hour12, with: " ")
    case "m": return padded(self.month)
    case "M": return padded(minute)
    case "n": return "\n"
    case "p": return hour < 12 ? "AM" : "PM"
    case "P": return hour < 12 ? "am" : "pm"
    case "r": return formatted("%I:%M:%S %p")
    case "R": return formatted("%H:%M")
    case "S": return padded(second)
    case "t": return "\t"
    case "T", "X": return formatted("%H:%M:%S")
    case "u": return String(weekday + 1)
    case "U": return padded((dayOfYear + 6 - (weekday + 1) % 7) / 7)
    case "V": return padded(isoWeek.week)
    case "w": return String((weekday + 1) % 7)
    case "W": return padded((dayOfYear + 6 - weekday) / 7)
    case "y": return padded(year % 100)
    case "Y": return String(year)
    case "z", "Z": return ""
    case "%": return "%"
    default: return nil
    }
  }
}
