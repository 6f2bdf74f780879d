import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Greetings {
    public static void main(String[] args) throws Exception {
        var settings = Map.<String, Object>of(
                "bootstrap.servers", "127.0.0.1:9092", "group.id", "readers", "auto.offset.reset", "earliest");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            producer.send(new ProducerRecord<>("greetings", "Ada", "hello, Ada")).get();
        }
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("greetings"));
            for (var record : consumer.poll(Duration.ofSeconds(10))) {
                System.out.println(record.offset() + " " + record.value());
            }
        }
    }
}
