echo "Ada:hello, Ada" | kcat -b 127.0.0.1:9092 -t greetings -K: -P
kcat -b 127.0.0.1:9092 -t greetings -C -e
