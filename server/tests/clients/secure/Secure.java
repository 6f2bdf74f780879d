import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Kafka's own client over TLS, by SCRAM-SHA-512. */
public class Secure {
    public static void main(String[] args) throws Exception {
        var environment = System.getenv();
        var topic = environment.get("TOPIC");
        var settings = new HashMap<String, Object>();
        settings.put("bootstrap.servers", environment.get("BOOTSTRAP"));
        settings.put("group.id", environment.get("GROUP"));
        settings.put("auto.offset.reset", "earliest");
        settings.put("security.protocol", "SASL_SSL");
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.location", environment.get("TLS_CA"));
        settings.put("sasl.mechanism", "SCRAM-SHA-512");
        settings.put("sasl.jaas.config", String.format(
                "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"%s\" password=\"%s\";",
                environment.get("SASL_USER"), environment.get("SASL_PASSWORD")));
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>(topic, "Ada", "hello, Ada")).get();
        }
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            for (int tries = 0; tries < 30; tries++) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(record.value());
                    return;
                }
            }
        }
    }
}
