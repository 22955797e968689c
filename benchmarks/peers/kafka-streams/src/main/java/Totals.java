import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;

/** Sums over the rows of one arm, or of both. */
final class Totals {
  /** Logarithmic buckets from 1 ms to 60 s: a quantile is exact to 9 %. */
  private static final int BUCKETS = 64;

  private static final double LOWEST_S = 1e-3;
  private static final double LOG_LOWEST = Math.log(LOWEST_S);
  private static final double LOG_GROWTH = Math.log(60.0 / LOWEST_S) / BUCKETS;
  private static final int ARM_BYTES = Long.BYTES * 3 + Integer.BYTES * BUCKETS;
  private static final String[] ARMS = {"control", "candidate"};

  static final Serde<Totals> SERDE =
      Serdes.serdeFrom((topic, totals) -> totals.write(), (topic, bytes) -> Totals.read(bytes));

  private final long[] counts;
  private final long[] errors;
  private final double[] sums;
  private final int[] histograms;

  Totals(int arms) {
    counts = new long[arms];
    errors = new long[arms];
    sums = new double[arms];
    histograms = new int[arms * BUCKETS];
  }

  void add(int arm, double seconds, boolean error) {
    counts[arm]++;
    sums[arm] += seconds;
    if (error) {
      errors[arm]++;
    }
    double bucket = (Math.log(seconds) - LOG_LOWEST) / LOG_GROWTH;
    histograms[arm * BUCKETS + (int) Math.max(0, Math.min(bucket, BUCKETS - 1))]++;
  }

  Totals add(Totals other) {
    for (int arm = 0; arm < counts.length; arm++) {
      counts[arm] += other.counts[arm];
      errors[arm] += other.errors[arm];
      sums[arm] += other.sums[arm];
    }
    for (int bucket = 0; bucket < histograms.length; bucket++) {
      histograms[bucket] += other.histograms[bucket];
    }
    return this;
  }

  Totals copy() {
    return new Totals(counts.length).add(this);
  }

  /** A result as JSON for each arm that has rows, keyed by it. */
  List<KeyValue<String, String>> results(String key, long start) {
    List<KeyValue<String, String>> results = new ArrayList<>();
    for (int arm = 0; arm < counts.length; arm++) {
      if (counts[arm] > 0) {
        String name = counts.length == 1 ? key : ARMS[arm];
        String json =
            String.format(
                Locale.ROOT,
                "{\"start_ms\":%d,\"arm\":\"%s\",\"count\":%d,\"mean\":%s,\"error_rate\":%s,"
                    + "\"p95\":%s}",
                start,
                name,
                counts[arm],
                sums[arm] / counts[arm],
                (double) errors[arm] / counts[arm],
                p95(arm));
        results.add(KeyValue.pair(name, json));
      }
    }
    return results;
  }

  private double p95(int arm) {
    double wanted = 0.95 * counts[arm];
    int bucket = 0;
    for (long seen = histograms[arm * BUCKETS]; seen < wanted; bucket++) {
      seen += histograms[arm * BUCKETS + bucket + 1];
    }
    return LOWEST_S * Math.exp(LOG_GROWTH * (bucket + 0.5));
  }

  private byte[] write() {
    ByteBuffer bytes = ByteBuffer.allocate(counts.length * ARM_BYTES);
    for (int arm = 0; arm < counts.length; arm++) {
      bytes.putLong(counts[arm]).putLong(errors[arm]).putDouble(sums[arm]);
    }
    bytes.asIntBuffer().put(histograms);
    return bytes.array();
  }

  private static Totals read(byte[] written) {
    ByteBuffer bytes = ByteBuffer.wrap(written);
    Totals totals = new Totals(written.length / ARM_BYTES);
    for (int arm = 0; arm < totals.counts.length; arm++) {
      totals.counts[arm] = bytes.getLong();
      totals.errors[arm] = bytes.getLong();
      totals.sums[arm] = bytes.getDouble();
    }
    bytes.asIntBuffer().get(totals.histograms);
    return totals;
  }
}
